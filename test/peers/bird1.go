package peers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// bird1 is BIRD 1.6, from which Calico's has branched off: a process for each family, bird and bird6.
type bird1 struct{}

// dirBIRD1 is where test/install unpacks it, since Debian's packages of the two versions exclude each other.
const dirBIRD1 = "/usr/local/lib/bird1/"

func (bird1) programs() []program {
	var out []program
	for _, name := range [...]string{"bird", "bird6", "birdc", "birdc6"} {
		out = append(out, program{dirBIRD1 + name, "make deps"})
	}
	return out
}

func (bird1) user() string { return "" }

// bird1Half is one of the two processes.
type bird1Half struct {
	name, control string
	v6            bool
}

func bird1Halves() []bird1Half {
	return []bird1Half{{"bird", "birdc", false}, {"bird6", "birdc6", true}}
}

func (h bird1Half) ask(ctx context.Context, r *Router, words ...string) (string, error) {
	return r.query(ctx, dirBIRD1+h.control, append([]string{"-s", r.path(h.name + ".ctl")}, words...)...)
}

func (bird1) commands(r *Router) []command {
	var out []command
	for _, h := range bird1Halves() {
		out = append(out, command{h.name, birdArgs(r, dirBIRD1+h.name, h.name), func(ctx context.Context) error {
			_, err := h.ask(ctx, r, "show status")
			return err
		}})
	}
	return out
}

func (bird1) files(r *Router) map[string]string {
	out := make(map[string]string)
	for _, h := range bird1Halves() {
		out[h.name+".conf"] = h.config(&r.cfg)
	}
	return out
}

func (h bird1Half) config(c *Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "log stderr all;\nrouter id %s;\nprotocol device {}\nprotocol direct { interface \"*\"; }\n", c.RouterID)
	export := "none"
	if c.Kernel {
		export = "where source = RTS_BGP"
	}
	fmt.Fprintf(&b, "protocol kernel { import none; export %s; merge paths on; }\n", export)
	own := slices.DeleteFunc(slices.Clone(c.Originate), func(p netip.Prefix) bool { return p.Addr().Is6() != h.v6 })
	if len(own) > 0 {
		b.WriteString("protocol static own {\n")
		for _, p := range own {
			fmt.Fprintf(&b, "\troute %s blackhole%s;\n", p, birdCommunities(c))
		}
		b.WriteString("}\n")
	}
	for i, n := range c.Neighbours {
		if n.Addr.Is6() == h.v6 {
			birdSession(&b, c, i, 1)
		}
	}
	return b.String()
}

func (bird1) reload(ctx context.Context, r *Router) error {
	var errs []error
	for _, h := range bird1Halves() {
		errs = append(errs, birdReloaded(h.ask(ctx, r, "configure")))
	}
	return errors.Join(errs...)
}

func (bird1) sessions(ctx context.Context, r *Router) ([]Session, error) {
	var out []Session
	for _, h := range bird1Halves() {
		text, err := h.ask(ctx, r, "show protocols all")
		if err != nil {
			return nil, err
		}
		out = append(out, birdSessions(text)...)
	}
	return out, nil
}

func (bird1) paths(ctx context.Context, r *Router, p netip.Prefix) ([]Path, error) {
	out, err := bird1Halves()[digit(p.Addr().Is6())].ask(ctx, r, "show route", p.String(), "all")
	if err != nil && !strings.Contains(err.Error(), "not in table") {
		return nil, err
	}
	return birdPaths(out, p), nil
}
