package cluster

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// sliceKey is the key of an EndpointSlice: those of one Service stand together.
type sliceKey struct{ service, name string }

func compareSliceKeys(a, b sliceKey) int {
	return cmp.Or(strings.Compare(a.service, b.service), strings.Compare(a.name, b.name))
}

func equalServices(a, b *Service) bool {
	return a.Name == b.Name && slices.Equal(a.ClusterIPs, b.ClusterIPs) && slices.Equal(a.ExternalIPs, b.ExternalIPs) &&
		slices.Equal(a.LoadBalancerIPs, b.LoadBalancerIPs) && a.Local == b.Local && a.InternalLocal == b.InternalLocal && a.HealthPort == b.HealthPort
}

func equalSlices(a, b *EndpointSlice) bool {
	return a.Name == b.Name && a.Service == b.Service && a.Family == b.Family && slices.Equal(a.Ready, b.Ready)
}

func equalPods(a, b *Pod) bool {
	return a.Name == b.Name && a.Node == b.Node && slices.Equal(a.Addrs, b.Addrs) && maps.Equal(a.Labels, b.Labels)
}

// SetService adds or replaces a Service.
func (b *Builder) SetService(s *Service) bool {
	_, changed := b.services.set(s)
	return b.note(changed)
}

// DeleteService removes a Service.
func (b *Builder) DeleteService(name string) bool { return b.note(b.services.remove(name) != nil) }

// SetSlice adds or replaces an EndpointSlice (key: its Service and its name).
func (b *Builder) SetSlice(s *EndpointSlice) bool {
	_, changed := b.slices.set(s)
	return b.note(changed)
}

// DeleteSlice removes an EndpointSlice.
func (b *Builder) DeleteSlice(service, name string) bool {
	return b.note(b.slices.remove(sliceKey{service, name}) != nil)
}

// SetPod adds or replaces a Pod.
func (b *Builder) SetPod(p *Pod) bool {
	_, changed := b.pods.set(p)
	return b.note(changed)
}

// DeletePod removes a Pod.
func (b *Builder) DeletePod(name string) bool { return b.note(b.pods.remove(name) != nil) }

// Services returns every Service, sorted by name; none unless the cluster announces service addresses.
func (s *State) Services() []*Service { return s.objects().Services }

// Slices returns the EndpointSlices of a Service, sorted by name.
func (s *State) Slices(service string) []*EndpointSlice {
	all := s.objects().Slices
	from, _ := slices.BinarySearchFunc(all, service, func(e *EndpointSlice, service string) int { return strings.Compare(e.Service, service) })
	to := from
	for to < len(all) && all[to].Service == service {
		to++
	}
	return all[from:to:to]
}

// EachService calls yield with every Service and its EndpointSlices, in order of names. It walks both lists once.
func (s *State) EachService(yield func(*Service, []*EndpointSlice)) {
	rest := s.objects().Slices
	for _, service := range s.objects().Services {
		from := 0
		for from < len(rest) && rest[from].Service < service.Name {
			from++ // of a Service that is not there
		}
		to := from
		for to < len(rest) && rest[to].Service == service.Name {
			to++
		}
		yield(service, rest[from:to:to])
		rest = rest[to:]
	}
}

// Pods returns the Pods that are known, sorted by name: this node's own, where its workload routes are ours.
func (s *State) Pods() []*Pod { return s.objects().Pods }

// PeersWithWorkloads reports whether a BGPPeer has workloads for peers, so that a node's own Pods must be known.
func (s *State) PeersWithWorkloads() bool {
	return slices.ContainsFunc(s.BGPPeers(), func(p *BGPPeer) bool { return p.WorkloadSelector != "" })
}

// AnnouncesServices reports whether addresses of Services are announced, so that Services must be known.
func (c *BGPConfig) AnnouncesServices() bool {
	return len(c.ServiceClusterIPs)+len(c.ServiceExternalIPs)+len(c.ServiceLoadBalancerIPs) > 0
}
