package bgp

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Election is the outcome of a mesh's election of route reflectors, the same on every node with the same State.
type Election struct {
	Why     string      // why there is one, or none
	Elected []Reflector // sorted by name; none where the mesh stays one
}

// Reflector is a node that reflects the mesh's routes.
type Reflector struct{ Node, Zone, Why string }

// elect chooses the route reflectors of a large mesh (BGPConfiguration default, annotation caracal.net/route-reflectors). Zones take turns, those
// without a candidate left are passed over; within a zone, and among zones, the greatest SHA-256 of the name comes first. Those who are about to leave are elected where nobody else is left. So a node that comes or goes
// changes the outcome only where it is, or would be, elected itself.
func (m *maker) elect() *Election {
	r := m.bgp.Reflection
	if r.Count == 0 {
		return nil
	}
	const field = "metadata.annotations[caracal.net/route-reflectors]"
	if !m.bgp.Mesh {
		m.problem("BGPConfiguration default", field, "reflectors are elected by the node-to-node mesh, which is off (spec.nodeToNodeMeshEnabled): turn it on, or remove the annotation")
		return nil
	}
	members := 0
	var used [2]bool
	for _, n := range m.st.Nodes() {
		if m.member(n) {
			members++
			used[0], used[1] = used[0] || n.Addr4.IsValid(), used[1] || n.Addr6.IsValid()
		}
	}
	e := &Election{Why: fmt.Sprintf("%d nodes are not more than %d: all peer with all", members, r.Above)}
	if members <= r.Above {
		return e
	}
	e.Elected = turns(m.candidates(&r, field, used, false), r.Count)
	if missing := r.Count - len(e.Elected); missing > 0 {
		e.Elected = append(e.Elected, turns(m.candidates(&r, field, used, true), missing)...)
	}
	slices.SortFunc(e.Elected, func(a, b Reflector) int { return cmp.Compare(a.Node, b.Node) })
	if len(e.Elected) == 0 {
		e.Why = "no node may be elected: all peer with all"
		m.problem("BGPConfiguration default", field, "none of %d nodes can be a route reflector, so all peer with all: let selector %q choose nodes of the cluster's AS with addresses of every family in use", members, r.Selector)
		return e
	}
	e.Why = fmt.Sprintf("%d nodes are more than %d", members, r.Above)
	return e
}

// member reports whether a node takes part: one of the mesh, with the cluster's AS. Any other peers with everybody as before.
func (m *maker) member(n *cluster.Node) bool {
	return !n.RouteReflectorClusterID.IsValid() && (n.Addr4.IsValid() || n.Addr6.IsValid()) && m.asnOf(n) == m.bgp.ASN
}

// zone is a failure domain with those who may be elected, the best first.
type zone struct {
	name  string
	nodes []string
	of    int
	// leaving: its nodes are about to leave.
	leaving bool
}

// candidates returns those who may be elected and stay, or those who are about to leave.
func (m *maker) candidates(r *cluster.Reflection, field string, used [2]bool, leaving bool) []zone {
	byZone := make(map[string][]string)
	for _, n := range m.st.Nodes() {
		if n.Leaving != leaving || !m.member(n) || used[0] && !n.Addr4.IsValid() || used[1] && !n.Addr6.IsValid() {
			continue
		}
		if r.Selector != "" {
			ok, err := m.match(r.Selector, n.Labels)
			if err != nil {
				m.problemOnce("BGPConfiguration default", field, err.Error())
			}
			if !ok || err != nil {
				continue
			}
		}
		byZone[n.Labels[r.Zone]] = append(byZone[n.Labels[r.Zone]], n.Name)
	}
	var zones []zone
	for name, nodes := range byZone {
		byWeight(nodes, func(s string) string { return s })
		zones = append(zones, zone{name: name, nodes: nodes, of: len(nodes), leaving: leaving})
	}
	byWeight(zones, func(z zone) string { return z.name })
	return zones
}

// byWeight sorts by the SHA-256 of names, the greatest first.
func byWeight[T any](list []T, name func(T) string) {
	sums := make(map[string][sha256.Size]byte, len(list))
	for _, x := range list {
		sums[name(x)] = sha256.Sum256([]byte(name(x)))
	}
	slices.SortFunc(list, func(a, b T) int {
		x, y := sums[name(a)], sums[name(b)]
		return cmp.Or(bytes.Compare(y[:], x[:]), cmp.Compare(name(a), name(b)))
	})
}

// turns has zones choose in turn until there are enough, or nobody is left.
func turns(zones []zone, count int) (out []Reflector) {
	for turn := 0; len(out) < count; turn++ {
		before := len(out)
		for i := range zones {
			z := &zones[i]
			if turn < len(z.nodes) && len(out) < count {
				why := fmt.Sprintf("number %d of %d that may be in zone %q", turn+1, z.of, z.name)
				if z.name == "" {
					why = fmt.Sprintf("number %d of %d that may be in no zone", turn+1, z.of)
				}
				if z.leaving {
					why += ", though it is about to leave: there is nobody else"
				}
				out = append(out, Reflector{Node: z.nodes[turn], Zone: z.name, Why: why})
			}
		}
		if len(out) == before {
			break
		}
	}
	return out
}

// elected reports whether a node reflects; it may be called of nil.
func (e *Election) elected(node string) bool {
	if e == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(e.Elected, node, func(r Reflector, s string) int { return cmp.Compare(r.Node, s) })
	return found
}

// apart reports whether two members of the mesh need no session, because both are clients.
func (m *maker) apart(n *cluster.Node) bool {
	e := m.election
	return e != nil && len(e.Elected) > 0 && m.member(m.self) && m.member(n) && !e.elected(m.self.Name) && !e.elected(n.Name)
}

// reflectMesh makes a session of the mesh one of a reflector and its client.
func (m *maker) reflectMesh(p *Peer, n *cluster.Node) {
	e := m.election
	if e == nil || len(e.Elected) == 0 || !m.member(n) || !m.member(m.self) {
		return
	}
	switch {
	case e.elected(n.Name):
		p.Source = "Node " + n.Name + " (mesh: elected route reflector)"
	case e.elected(m.self.Name):
		p.Source = "Node " + n.Name + " (mesh: client of this elected route reflector)"
		p.Client, p.ClusterID = true, m.routerID
	}
}
