package daemon

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/routes"
)

var errNoState = errors.New("the datastore has not been read yet")

// planBGP returns the BGP configuration of a node of the cluster, with the sources of its values.
func (d *daemon) planBGP(node string) (bgp.Config, []cluster.Problem, error) {
	st, err := d.known(node)
	if err != nil {
		return bgp.Config{}, nil, err
	}
	cfg, problems := d.explained(node).Plan(st, node, d.hostOf(node))
	return cfg, problems, nil
}

// diffBGP returns what changed resources would do to a node's BGP.
func (d *daemon) diffBGP(node, manifests string, deletions []string) (bgp.Difference, []cluster.Problem, error) {
	st, err := d.known(node)
	if err != nil {
		return bgp.Difference{}, nil, err
	}
	next, problems, err := datastore.Overlay(st, manifests, deletions)
	if err != nil {
		return bgp.Difference{}, nil, err
	}
	before, _ := d.explained(node).Plan(st, node, d.hostOf(node))
	after, more := d.explained(node).Plan(next, node, d.hostOf(node))
	diff := bgp.Diff(&before, &after)
	plans := make(map[string][2]*bgp.Config) // a node has a session of each family
	diff.AddFar(&before, &after, func(far string) (*bgp.Config, *bgp.Config) {
		if _, done := plans[far]; !done {
			plans[far] = d.foreseen(st, next, far)
		}
		return plans[far][0], plans[far][1]
	})
	if node == d.cfg.Node {
		diff.AddReceived(&before, &after, d.sentBy)
	}
	return diff, append(problems, more...), nil
}

// foreseen plans a node's BGP in two States, nil where it is not in both of them.
func (d *daemon) foreseen(before, after *cluster.State, node string) (plans [2]*bgp.Config) {
	if before.Node(node) == nil || after.Node(node) == nil {
		return plans
	}
	for i, st := range []*cluster.State{before, after} {
		cfg, _ := (&bgp.Planner{Match: matchSelector}).Plan(st, node, nil)
		plans[i] = &cfg
	}
	return plans
}

// sentBy is what a peer sends now; none where no engine runs or no session is up.
func (d *daemon) sentBy(peer netip.Addr) (paths []bgp.Path) {
	list, err := d.peerRoutes(peer, bgp.FromPeer, netip.Prefix{})
	if err != nil {
		return nil // it has no session yet
	}
	for i := range list {
		paths = append(paths, list[i].Before.Path)
	}
	return paths
}

// known returns the State, if a node is in it.
func (d *daemon) known(node string) (*cluster.State, error) {
	st := d.controller.View().state
	if st == nil {
		return nil, errNoState
	}
	if st.Node(node) == nil {
		return nil, fmt.Errorf("the datastore has no node %q", node)
	}
	return st, nil
}

// explained is the planner of a node. The environment's router id, and what is known of the data plane, is only ours.
func (d *daemon) explained(node string) *bgp.Planner {
	p := &bgp.Planner{Match: matchSelector, Explain: true}
	if node != d.cfg.Node {
		return p
	}
	p.DataPlane, p.PodNode = d.controller.verified(), d.nodeRef()
	if d.cfg.Settings != nil {
		p.RouterID, p.HashRouterID = d.cfg.Settings.RouterID.Addr, d.cfg.Settings.RouterID.Hash
	}
	return p
}

// hostOf is the picture of the host where the node is ours.
func (d *daemon) hostOf(node string) *routes.Host {
	if node != d.cfg.Node {
		return nil
	}
	if h := d.controller.View().host; h != nil {
		return h
	}
	return d.controller.host()
}
