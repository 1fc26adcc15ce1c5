package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// reflectorLabel is on the reflectors, by which the scenario's BGPPeer selects them.
const reflectorLabel = "reflector"

// learning keeps the clusters whose routes come from BGP, in a datastore that gives way to everything.
func learning(s Spec) (bool, string) {
	switch {
	case s.Mode == VXLAN || s.Mode == VXLANCrossSubnet || s.Backend != cluster.BackendBird:
		return false, "its routes do not come from BGP"
	case s.Nodes < 3:
		return false, "needs three nodes or more"
	}
	return !s.Kubernetes, "needs a directory for its datastore: daemons may not write all of it in an API server"
}

// reflectors makes a mesh into clients of a reflector as an administrator would, object after object, and a mesh again, in the order of haste: the
// sessions of the one are taken away in the same moment in which those of the other are asked for. Then it has the mesh elect a reflector, another one,
// and none. No kernel may lose a route.
func reflectors(ctx context.Context, r *run) error {
	store, err := r.Store()
	if err != nil {
		return err
	}
	rr, next := r.Plan.Nodes[1].Name, r.Plan.Nodes[0].Name
	others := len(r.Plan.Members()) - 1
	all := func(string) int { return others }
	star := func(centre string) func(string) int {
		return func(node string) int {
			if node == centre {
				return others
			}
			return 1
		}
	}
	for _, step := range []struct {
		what string
		do   func() error
		want func(node string) (sessions int)
	}{
		{"mesh to reflector", func() error { return r.toReflector(ctx, store, rr) }, star(rr)},
		{"reflector to mesh", func() error { return r.toMesh(ctx, store, rr) }, all},
		{"mesh to elected reflector", func() error { return r.toElected(ctx, store, rr) }, star(rr)},
		{"another is elected", func() error { return r.moveLabel(ctx, store, rr, next) }, star(next)},
		{"elected reflector to mesh", func() error {
			err := remove(ctx, store, &calico.BGPConfiguration{ObjectMeta: calico.ObjectMeta{Name: calico.DefaultName}})
			return errors.Join(err, r.moveLabel(ctx, store, next, ""))
		}, all},
	} {
		_, err := r.probed(ctx, "of all pairs, "+step.what, r.Endpoints(nil), lossless, func() error {
			return r.guarded(ctx, func() error {
				began := time.Now()
				if err := step.do(); err != nil {
					return err
				}
				for range 2 { // a reflector has as many sessions as before, and may not have heard of the change the first time
					if err := r.eachMember(func(node string) error { return r.waitSessions(ctx, node, step.want(node)) }); err != nil {
						return errors.Join(err, r.why(ctx))
					}
				}
				r.note(step.what+" was done everywhere after", "%s", ms(time.Since(began)))
				return nil
			})
		})
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// toReflector first says who reflects, which takes it out of the mesh, and turns the mesh off last.
func (r *run) toReflector(ctx context.Context, store datastore.Store, rr string) error {
	err := change(ctx, store, calico.KindNode, rr, func(n *calico.Node) {
		n.Labels[reflectorLabel] = "true"
		n.Spec.BGP.RouteReflectorClusterID = "192.0.2.255"
	})
	if err != nil {
		return err
	}
	peer := &calico.BGPPeer{ObjectMeta: calico.ObjectMeta{Name: reflectorLabel}}
	peer.Spec.NodeSelector, peer.Spec.PeerSelector = "all()", "has("+reflectorLabel+")"
	off := false
	conf := &calico.BGPConfiguration{ObjectMeta: calico.ObjectMeta{Name: calico.DefaultName}}
	conf.Spec.NodeToNodeMeshEnabled = &off
	for _, obj := range []calico.Object{peer, conf} {
		if _, err := store.Create(ctx, obj); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) toMesh(ctx context.Context, store datastore.Store, rr string) error {
	for _, obj := range []calico.Object{
		&calico.BGPPeer{ObjectMeta: calico.ObjectMeta{Name: reflectorLabel}},
		&calico.BGPConfiguration{ObjectMeta: calico.ObjectMeta{Name: calico.DefaultName}},
	} {
		if err := remove(ctx, store, obj); err != nil {
			return err
		}
	}
	return change(ctx, store, calico.KindNode, rr, func(n *calico.Node) {
		delete(n.Labels, reflectorLabel)
		n.Spec.BGP.RouteReflectorClusterID = ""
	})
}

// toElected has the mesh elect whoever has the label.
func (r *run) toElected(ctx context.Context, store datastore.Store, rr string) error {
	if err := r.moveLabel(ctx, store, "", rr); err != nil {
		return err
	}
	conf := &calico.BGPConfiguration{ObjectMeta: calico.ObjectMeta{Name: calico.DefaultName}}
	conf.Annotations = map[string]string{calico.AnnotationReflectors: "above=0,count=1,selector=has(" + reflectorLabel + ")"}
	_, err := store.Create(ctx, conf)
	return err
}

// moveLabel gives the reflector's label to another node, before it is taken from the first; "" is none.
func (r *run) moveLabel(ctx context.Context, store datastore.Store, from, to string) error {
	if to != "" {
		if err := change(ctx, store, calico.KindNode, to, func(n *calico.Node) { n.Labels[reflectorLabel] = "true" }); err != nil {
			return err
		}
	}
	if from == "" {
		return nil
	}
	return change(ctx, store, calico.KindNode, from, func(n *calico.Node) { delete(n.Labels, reflectorLabel) })
}

// waitSessions waits until a node has so many sessions of each family, no more, and all are up and as they are to stay.
func (r *run) waitSessions(ctx context.Context, node string, want int) error {
	if r.Plan.Spec.Family == DualStack {
		want *= 2
	}
	return poll(ctx, 20*time.Millisecond, func() error {
		peers, err := r.Peers(ctx, node)
		if err != nil {
			return err
		}
		if len(peers) != want {
			return fmt.Errorf("%s has %d sessions, want %d", node, len(peers), want)
		}
		for _, p := range peers {
			if p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED || !p.GetEndOfRib() {
				return fmt.Errorf("%s: session %s is %s (%s), End-of-RIB %t", node, p.GetName(), p.GetState(), p.GetLastError(), p.GetEndOfRib())
			}
			if source, more, yet := strings.Cut(p.GetSource(), ", "); yet {
				return fmt.Errorf("%s: session %s of %s: %s", node, p.GetName(), source, more)
			}
		}
		return nil
	})
}
