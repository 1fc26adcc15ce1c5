package kube

import (
	"context"
	"fmt"
	"slices"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// secrets follows the Secrets that sessions take their passwords from, each for itself: our role allows none, an
// operator adds one for those that are meant. That one cannot be read is a problem of the session, not of the datastore.
type secrets struct {
	ctx    context.Context // of Watch
	start  starter
	wanted map[string]*wantedSecret
}

type wantedSecret struct {
	shelf *shelf
	stop  context.CancelFunc
}

func newSecrets(ctx context.Context, start starter) *secrets {
	return &secrets{ctx: ctx, start: start, wanted: map[string]*wantedSecret{}}
}

func (s *secrets) follow(in *datastore.Intake) (problems []cluster.Problem) {
	names := secretNames(in.State())
	for name, old := range s.wanted {
		if !slices.Contains(names, name) {
			old.stop()
			old.shelf.dropped = true
			in.Delete(datastore.Key{Kind: calico.KindSecret, Name: name})
			delete(s.wanted, name)
		}
	}
	for _, name := range names {
		w := s.wanted[name]
		if w == nil {
			ctx, stop := context.WithCancel(s.ctx)
			w = &wantedSecret{shelf: s.start(ctx, calico.KindSecret, "metadata.name="+name), stop: stop}
			s.wanted[name] = w
		}
		if w.shelf.err != nil {
			problems = append(problems, cluster.Problem{Object: calico.ObjectName(calico.KindSecret, name),
				Text: fmt.Sprintf("cannot be read: %v; allow caracald's service account to get, list and watch this Secret, by a Role and a RoleBinding", w.shelf.err)})
		}
	}
	return problems
}

// secretNames returns the names of the Secrets that settings refer to, sorted.
func secretNames(st *cluster.State) (names []string) {
	add := func(k cluster.SecretKey) {
		if k.Name != "" {
			names = append(names, k.Name)
		}
	}
	add(st.BGP().MeshPassword)
	for _, p := range st.BGPPeers() {
		add(p.Password)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
