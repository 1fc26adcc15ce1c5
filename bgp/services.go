package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// labelExcluded keeps a node from announcing service addresses. Its presence counts, whatever its value, as in Kubernetes.
const labelExcluded = "node.kubernetes.io/exclude-from-external-load-balancers"

// DataPlane is what has been verified of this node's handling of packets to service addresses. Who plans for another node has none.
type DataPlane struct {
	// Proxy is the service proxy as a whole; no address is announced before it is verified.
	Proxy Verified
	// Services are those that the proxy tells of one by one (see Checked), by name.
	Services map[string]Verified
	// Doubt, when not empty, says why what is OK has not been verified all the same.
	Doubt string
}

// Verified is one answer; Why says, unless it is OK, what is being waited for.
type Verified struct {
	OK  bool
	Why string
}

// Checked reports whether the service proxy of a node tells of a Service by itself: of one with external traffic policy Local that has a
// health check port.
func Checked(s *cluster.Service) bool { return s.Local && s.HealthPort != 0 }

// Held is a prefix that would be announced if the data plane of this node were known to handle it.
type Held struct {
	Prefix      netip.Prefix
	Source, Why string
}

// serviceKind is one of the three kinds of addresses that Services have.
type serviceKind struct {
	ranges []netip.Prefix // of BGPConfiguration
	field  string         // of BGPConfiguration
	// each: ranges of one address are announced by the Services that have it, not as they are. wholly: the others are announced as they are.
	each, wholly bool
	addrs        func(*cluster.Service) []netip.Addr
	local        func(*cluster.Service) bool
	from         string // field of the Service
}

func serviceKinds(c *cluster.BGPConfig) []serviceKind {
	external := func(s *cluster.Service) bool { return s.Local }
	return []serviceKind{
		{ranges: c.ServiceClusterIPs, field: "spec.serviceClusterIPs", wholly: true, from: "spec.clusterIPs",
			addrs: func(s *cluster.Service) []netip.Addr { return s.ClusterIPs },
			local: func(s *cluster.Service) bool { return s.Local || s.InternalLocal }},
		{ranges: c.ServiceExternalIPs, field: "spec.serviceExternalIPs", each: true, wholly: true, from: "spec.externalIPs",
			addrs: func(s *cluster.Service) []netip.Addr { return s.ExternalIPs }, local: external},
		{ranges: c.ServiceLoadBalancerIPs, field: "spec.serviceLoadBalancerIPs", each: true, wholly: !c.NoServiceAggregation,
			from:  "status.loadBalancer.ingress",
			addrs: func(s *cluster.Service) []netip.Addr { return s.LoadBalancerIPs }, local: external},
	}
}

// announcedWhole reports whether a range is announced as it is, by every node that is not excluded.
func (k *serviceKind) announcedWhole(p netip.Prefix) bool {
	return k.wholly && !(k.each && p.IsSingleIP())
}

// Services returns the service addresses that a node originates, and those that wait for its data plane; both sorted, each prefix once. host is the node
// as Kubernetes names it, of which endpoints tell.
func Services(st *cluster.State, node, host string, plane *DataPlane) ([]Origination, []Held) {
	conf, self := st.BGP(), st.Node(node)
	if self == nil || !conf.AnnouncesServices() {
		return nil, nil
	}
	if _, excluded := self.Labels[labelExcluded]; excluded {
		return nil, nil
	}
	a := &announcer{plane: plane}
	kinds := serviceKinds(&conf)
	for i := range kinds {
		for j, r := range kinds[i].ranges {
			if kinds[i].announcedWhole(r) {
				a.add(r, fmt.Sprintf("BGPConfiguration default %s[%d]", kinds[i].field, j), nil)
			}
		}
	}
	st.EachService(func(s *cluster.Service, endpoints []*cluster.EndpointSlice) {
		ready := readyAt(endpoints, host)
		for i := range kinds {
			for _, addr := range kinds[i].addrs(s) {
				if kinds[i].wants(s, addr, ready) {
					a.add(netip.PrefixFrom(addr, addr.BitLen()), "Service "+s.Name+" "+kinds[i].from, s)
				}
			}
		}
	})
	return a.result()
}

// readiness says, by family (IPv4 first), whether a Service has a ready endpoint at all, and at a node.
type readiness struct{ anywhere, here [2]bool }

func readyAt(endpoints []*cluster.EndpointSlice, node string) (r readiness) {
	for _, e := range endpoints {
		i := 0
		if e.Family == cluster.IPv6 {
			i = 1
		}
		r.anywhere[i] = r.anywhere[i] || len(e.Ready) > 0
		_, here := slices.BinarySearch(e.Ready, node)
		r.here[i] = r.here[i] || here
	}
	return r
}

// wants reports whether a node announces one address of a Service by itself: where only nodes with endpoints forward packets to it, from
// those; else if it is listed as a range of its own, or no range that is announced as a whole holds it, from all, while there is an endpoint. Endpoints of the other family do not count.
func (k *serviceKind) wants(s *cluster.Service, addr netip.Addr, r readiness) bool {
	single, family := netip.PrefixFrom(addr, addr.BitLen()), 0
	if addr.Is6() {
		family = 1
	}
	if _, in := cover(k.ranges, single); !in {
		return false
	}
	if k.local(s) {
		return r.here[family]
	}
	listed := k.each && slices.Contains(k.ranges, single)
	if !listed && slices.ContainsFunc(k.ranges, func(p netip.Prefix) bool { return k.announcedWhole(p) && p.Contains(addr) }) {
		return false
	}
	return r.anywhere[family]
}

// announcer collects what a node announces.
type announcer struct {
	plane *DataPlane
	out   []Origination
	held  []Held
}

// add takes a prefix; s is the Service that it is an address of, nil for a range.
func (a *announcer) add(p netip.Prefix, source string, s *cluster.Service) {
	if why := a.waits(s); why != "" {
		a.held = append(a.held, Held{Prefix: p, Source: source, Why: why})
		return
	}
	a.out = append(a.out, Origination{Prefix: p, Source: source})
}

// waits says what an address waits for.
func (a *announcer) waits(s *cluster.Service) string {
	switch {
	case a.plane == nil:
		return ""
	case s != nil && Checked(s): // its own check says more than that of the whole proxy
		if v := a.plane.Services[s.Name]; !v.OK {
			return cmp.Or(v.Why, "its health check has not been asked yet")
		}
	case !a.plane.Proxy.OK:
		return cmp.Or(a.plane.Proxy.Why, "the service proxy has not been asked yet")
	}
	return ""
}

// result sorts. A prefix that two Services have, of which one is verified, is announced.
func (a *announcer) result() ([]Origination, []Held) {
	slices.SortStableFunc(a.out, func(x, y Origination) int {
		return cmp.Or(x.Prefix.Compare(y.Prefix), strings.Compare(x.Source, y.Source))
	})
	a.out = slices.CompactFunc(a.out, func(x, y Origination) bool { return x.Prefix == y.Prefix })
	slices.SortStableFunc(a.held, func(x, y Held) int {
		return cmp.Or(x.Prefix.Compare(y.Prefix), strings.Compare(x.Source, y.Source))
	})
	a.held = slices.CompactFunc(a.held, func(x, y Held) bool { return x.Prefix == y.Prefix })
	a.held = slices.DeleteFunc(a.held, func(h Held) bool {
		_, found := slices.BinarySearchFunc(a.out, h.Prefix, func(o Origination, p netip.Prefix) int { return o.Prefix.Compare(p) })
		return found
	})
	return a.out, a.held
}
