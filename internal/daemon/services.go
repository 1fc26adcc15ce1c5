package daemon

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/proxyhealth"
	"github.com/caracal-net/caracal/routes"
)

// served is what the last configuration of the Speaker was made of, so that a change of Services elsewhere in the cluster costs no plan.
type served struct {
	state     *cluster.State
	host      *routes.Host
	plane     *bgp.DataPlane
	leaving   bgp.Leaving
	announced []bgp.Origination
	held      []bgp.Held
	problems  []cluster.Problem
}

// serviceView is what inspection sees of it.
type serviceView struct {
	announced int
	held      []bgp.Held
	doubt     string
}

func (s *served) view() serviceView {
	v := serviceView{announced: len(s.announced), held: s.held}
	if s.plane != nil {
		v.doubt = s.plane.Doubt
	}
	return v
}

// String says what is announced and what is not yet.
func (v serviceView) String() string {
	if len(v.held) == 0 {
		return v.doubt
	}
	return fmt.Sprintf("%d addresses and ranges are announced, %d wait, %s the first: %s", v.announced, len(v.held), v.held[0].Prefix, v.held[0].Why)
}

// openProxy makes the task that verifies the data plane of Services. restarting: a former process has left its routes.
func (d *daemon) openProxy(restarting bool) {
	if d.cfg.ProxyHealth == ProxyHealthOff {
		return
	}
	d.controller.gated = true
	d.proxy = proxyhealth.New(proxyhealth.Options{Node: d.cfg.Node, Host: d.nodeRef(), Address: cmp.Or(d.cfg.ProxyHealth, proxyhealth.DefaultAddress), Log: d.log,
		Forwarding: restarting, Changed: d.controller.setDataPlane})
}

func (c *controller) setDataPlane(p *bgp.DataPlane) { c.post(func(in *inbox) { in.plane = p }) }

// verified returns what is verified of this node's data plane, nil where nothing is.
func (c *controller) verified() *bgp.DataPlane {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gated && c.in.plane == nil {
		return &bgp.DataPlane{}
	}
	return c.in.plane
}

// configure returns what the Speaker should be. nil: it is too early to say, because the first questions to the service proxy are still under
// way. A Speaker that was started without the answers would have its peers drop what a former one had announced.
func (c *controller) configure(in inbox) (*bgp.Config, []cluster.Problem) {
	st, was := in.update.State, &c.served
	conf := st.BGP()
	plane := in.plane
	if c.gated && plane == nil && conf.AnnouncesServices() {
		if c.config == nil {
			return nil, nil
		}
		plane = &bgp.DataPlane{}
	}
	announced, held := bgp.Services(st, c.node, cmp.Or(c.podNode, c.node), plane)
	same := c.config != nil && was.host == in.host && was.leaving == in.leaving && slices.Equal(was.announced, announced) && servicesOnly(cluster.Diff(was.state, st), st.PeersWithWorkloads())
	c.served = served{state: st, host: in.host, plane: plane, leaving: in.leaving, announced: announced, held: held, problems: was.problems}
	if same {
		return c.config, was.problems
	}
	cfg, problems := c.plannerOfBGP().Plan(st, c.node, in.host)
	c.served.problems = problems
	return &cfg, problems
}

// servicesOnly reports whether nothing but Services, their endpoints and, where no session is with one, Pods differs.
func servicesOnly(d cluster.Changes, withPods bool) bool {
	return (!withPods || len(d.Pods) == 0) && len(d.Nodes)+len(d.Pools)+len(d.Blocks)+len(d.Affinities)+len(d.Peers)+len(d.Filters)+len(d.Secrets) == 0 &&
		!d.BGP && !d.Felix && !d.Backend && !d.Problems
}

// clusterIPs are the ranges that the environment has announced.
func (d *daemon) clusterIPs() []netip.Prefix {
	if d.cfg.Settings == nil {
		return nil
	}
	return d.cfg.Settings.ClusterIPs
}
