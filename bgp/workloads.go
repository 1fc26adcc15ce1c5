package bgp

import (
	"fmt"
	"net/netip"

	"github.com/caracal-net/caracal/internal/cluster"
)

// workloads adds the sessions of a BGPPeer that has workloads of this node for peers, one for the first address of each family (confd:
// local_bgp_peer_watcher). The workload dials, to any address of ours. Of the BGPPeer's fields its AS numbers, times, password, filters and
// bound of prefixes count.
func (m *maker) workloads(b *cluster.BGPPeer) {
	if b.ASN == 0 {
		m.problem("BGPPeer "+b.Name, "spec.asNumber", "the AS of the workloads is not set: set asNumber")
		return
	}
	for _, pod := range m.podsOf(b) {
		for _, f := range families {
			if a := firstOf(pod.Addrs, f); a.IsValid() && m.self.Addr(f).IsValid() {
				m.workload(b, pod, a)
			}
		}
	}
}

// podsOf returns the Pods of this node that a BGPPeer chooses.
func (m *maker) podsOf(b *cluster.BGPPeer) (pods []*cluster.Pod) {
	for _, pod := range m.st.Pods() {
		if pod.Node != m.podNode {
			continue
		}
		ok, err := m.match(b.WorkloadSelector, pod.Labels)
		if err != nil {
			m.problemOnce("BGPPeer "+b.Name, "spec.localWorkloadSelector", err.Error())
			return nil
		}
		if ok {
			pods = append(pods, pod)
		}
	}
	return pods
}

// LocalWorkloads returns the names (namespace/name) of the Pods of a node that BGPPeers choose for its peers, for whoever puts an address in their
// way (localWorkloadPeeringIPV4). What is wrong with the BGPPeers is for Plan to say.
func (p *Planner) LocalWorkloads(st *cluster.State, node string) map[string]bool {
	self := st.Node(node)
	if self == nil {
		return nil
	}
	m := &maker{st: st, self: self, podNode: p.PodNode, match: p.Match}
	if m.match == nil {
		m.match = matchAll
	}
	names := map[string]bool{}
	for _, b := range st.BGPPeers() {
		if b.WorkloadSelector == "" || b.ASN == 0 || !m.selects(b, self) {
			continue
		}
		for _, pod := range m.podsOf(b) {
			names[pod.Name] = true
		}
	}
	return names
}

func (m *maker) workload(b *cluster.BGPPeer, pod *cluster.Pod, a netip.Addr) {
	p := Peer{
		Name:        peerName("Local_Workload", a, 0),
		Addr:        a,
		ASN:         b.ASN,
		LocalASN:    b.LocalASN,
		Passive:     true,
		RestartTime: b.MaxRestartTime,
		Keepalive:   b.KeepaliveTime,
		MaxPrefixes: b.MaxPrefixes,
		Source:      "BGPPeer " + b.Name,
	}
	if p.LocalASN == m.asnOf(m.self) {
		p.LocalASN = 0
	}
	m.reflect(&p, nil)
	if m.explain {
		m.resourceSources(&p, b)
		field := fmt.Sprintf("Pod %s status.podIPs, chosen by %s spec.localWorkloadSelector", pod.Name, p.Source)
		p.Sources[valAddr], p.Sources[valAS] = field, p.Source+" spec.asNumber"
		fixed := "a local workload's session"
		p.Sources[valPassive], p.Sources[valLocalAddr], p.Sources[valNextHop] = fixed+" is dialled by the workload", fixed, fixed
	}
	m.wanted = append(m.wanted, &candidate{peer: p, rank: rankWorkload, from: b.Name, res: b})
}

func firstOf(list []netip.Addr, f cluster.Family) netip.Addr {
	for _, a := range list {
		if cluster.FamilyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}
