package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// EnvAdopt names the programs whose leftovers are taken over; see ParseAdoption.
const EnvAdopt = "CARACAL_ADOPT"

// ParseAdoption reads whose leftovers are taken over: bird, felix, both with a comma between, or none. Nothing said means both where we are
// alone, and none beside a Felix, which is no dead man.
func ParseAdoption(s string, besideFelix bool) (routes.Adoption, error) {
	a := routes.Adoption{}
	words := strings.FieldsFunc(strings.ToLower(s), func(c rune) bool { return c == ',' || c == ' ' })
	if len(words) == 0 && !besideFelix {
		words = []string{"bird", "felix"}
	}
	for _, word := range words {
		switch {
		case word == "bird":
			a.BIRD = true
		case word == "felix" && besideFelix:
			return a, fmt.Errorf("adopt %q: the routes of a Felix that runs on this host are its own; leave out felix, or do not run beside Felix (%s, %s)", s, EnvAdopt, EnvBesideFelix)
		case word == "felix":
			a.Felix = true
		case word != "none" || len(words) > 1:
			return a, fmt.Errorf("adopt %q: want bird, felix, bird,felix or none (%s, --adopt)", s, EnvAdopt)
		}
	}
	return a, nil
}

// claim tells the programmer within which pools leftovers are ours: those that we program.
func (c *controller) claim(st *cluster.State, b cluster.Backend) {
	var ours []netip.Prefix
	if b != cluster.BackendNone {
		for _, p := range st.Pools() {
			if c.share.left(p) == "" {
				ours = append(ours, p.CIDR)
			}
		}
	}
	slices.SortFunc(ours, netip.Prefix.Compare)
	if !slices.Equal(ours, c.claimed) {
		c.claimed = ours
		c.prog.Within(ours...)
	}
}
