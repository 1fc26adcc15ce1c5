package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/workload"
)

// workloads is what the controller keeps of this node's own workloads, where the routes to them are ours.
type workloads struct {
	node string // Kubernetes' name of this node; "" = the routes are not ours
	last workload.Output
	told bool // last was given to the programmer
	// merged is the picture base with the workloads that are here by our own routes.
	base, merged *routes.Host
}

// errWorkloads: a Felix has the interfaces of workloads for its own.
var errWorkloads = errors.New("workload routes are Felix's where one runs: unset " + EnvWorkloads + " (--workload-routes) or " + EnvBesideFelix + " (--beside-felix)")

// podsOf is the node whose Pods are to be watched, as Kubernetes names it; "" = none.
func (d *daemon) podsOf() string {
	if !d.cfg.Workloads {
		return ""
	}
	return d.nodeRef()
}

// nodeRef is the name of our Kubernetes Node, which Calico's may differ from.
func (d *daemon) nodeRef() string {
	if d.cfg.Settings != nil && d.cfg.Settings.NodeRef != "" {
		return d.cfg.Settings.NodeRef
	}
	return d.cfg.Node
}

// owners are those that must be in sync before anything is deleted.
func (c *controller) owners() []routes.Owner {
	all := []routes.Owner{routes.OwnerVXLAN, routes.OwnerIPIP, routes.OwnerBGP}
	if c.workloads.node != "" {
		all = append(all, routes.OwnerWorkload)
	}
	return all
}

// planWorkloads wants routes to our own workloads, and puts a picture of the host with them in the place of the one that the kernel's other
// users have made: what BGP announces outside our blocks must not depend on whose routes lead to it.
func (c *controller) planWorkloads(in *inbox, v *view) {
	w := &c.workloads
	if w.node == "" {
		return
	}
	out := workload.Plan(c.dialled(workload.EndpointsOf(in.update.State, w.node), in.update.State, v.backend), in.host)
	v.problems = append(v.problems, out.Problems...)
	changed := !w.told || !sameWorkloads(&w.last, &out)
	if changed {
		w.last, w.told = out, true
		out.Change.Cause = c.why
		out.Change.Routes = slices.Clone(out.Change.Routes) // ours stays to be compared with
		out.Change.Addresses = append([]routes.InterfaceAddress{}, out.Change.Addresses...)
		c.prog.Apply(routes.OwnerWorkload, out.Change)
	}
	c.settled(*in, routes.OwnerWorkload)
	if w.base != in.host || w.merged == nil || changed {
		w.base, w.merged = in.host, in.host.WithWorkloads(out.Here, out.Devices())
	}
	in.host = w.merged
}

// dialled says which endpoints are BGP peers of ours, and at which address they find this node.
func (c *controller) dialled(endpoints []workload.Endpoint, st *cluster.State, backend cluster.Backend) []workload.Endpoint {
	conf := st.BGP()
	var at []netip.Addr
	for _, a := range []netip.Addr{conf.LocalPeering4, conf.LocalPeering6} {
		if a.IsValid() {
			at = append(at, a)
		}
	}
	if len(at) == 0 || backend != cluster.BackendBird {
		return endpoints
	}
	peers := c.plannerOfBGP().LocalWorkloads(st, c.node)
	for i := range endpoints {
		if e := &endpoints[i]; peers[e.Namespace+"/"+e.Pod] {
			e.Dialled = at
		}
	}
	return endpoints
}

// undialled says why the addresses that workloads shall dial answer nobody, where there are such workloads.
func (c *controller) undialled(st *cluster.State) (problems []cluster.Problem) {
	conf, why := st.BGP(), ""
	switch {
	case conf.BindNodeIP:
		why = "nothing listens at this address with bindMode: NodeIP: leave bindMode out, or have workloads dial an address of their node"
	case c.workloads.node == "" && !c.besideFelix:
		why = "nobody puts this address on the interfaces of workloads: run with --workload-routes (" + EnvWorkloads + "), or have them dial an address of their node"
	default:
		return nil
	}
	for _, f := range []struct {
		addr netip.Addr
		name string
	}{{conf.LocalPeering4, "spec.localWorkloadPeeringIPV4"}, {conf.LocalPeering6, "spec.localWorkloadPeeringIPV6"}} {
		if f.addr.IsValid() && len(c.plannerOfBGP().LocalWorkloads(st, c.node)) > 0 {
			problems = append(problems, cluster.Problem{Object: "BGPConfiguration default", Field: f.name, Text: why})
		}
	}
	return problems
}

// leaveWorkloads wants no routes to workloads.
func (c *controller) leaveWorkloads() {
	c.workloads.told = false
	if c.workloads.node != "" {
		c.prog.Apply(routes.OwnerWorkload, routes.Change{Whole: true, Settings: []routes.Setting{}, Addresses: []routes.InterfaceAddress{}})
		c.prog.InSync(routes.OwnerWorkload)
	}
}

// sameWorkloads reports whether two plans ask for the same.
func sameWorkloads(a, b *workload.Output) bool {
	return slices.Equal(a.Change.Settings, b.Change.Settings) && slices.Equal(a.Change.Addresses, b.Change.Addresses) && slices.EqualFunc(a.Change.Routes, b.Change.Routes, func(x, y routes.Route) bool {
		return x.Dst == y.Dst && slices.Equal(x.NextHops, y.NextHops) && *x.Reason == *y.Reason
	})
}

// lossesOfWorkloads counts routes to workloads that are in one State and not in another.
func (c *controller) lossesOfWorkloads(from, to *cluster.State) loss {
	l := loss{what: fmt.Sprintf("routes of owner %s", routes.OwnerWorkload)}
	keep := map[netip.Addr]bool{}
	for _, e := range workload.EndpointsOf(to, c.workloads.node) {
		for _, a := range e.Addrs {
			keep[a] = true
		}
	}
	for _, e := range workload.EndpointsOf(from, c.workloads.node) {
		for _, a := range e.Addrs {
			l.of++
			if !keep[a] {
				l.lost++
			}
		}
	}
	return l
}
