package matrix

import (
	"maps"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/test/peers"
)

// side is what is at the other end: a router of a kind, as a top-of-rack router or as a node of the mesh.
type side struct {
	kind peers.Kind
	mesh bool
}

func (s side) String() string {
	if s.mesh {
		return string(s.kind) + "-mesh"
	}
	return string(s.kind)
}

// sides are the columns.
func sides() []side {
	var out []side
	for _, k := range peers.Kinds() {
		out = append(out, side{kind: k})
	}
	return append(out, side{peers.BIRD2, true}, side{peers.BIRD1, true})
}

// rule is one row of the table.
type rule struct {
	name, says string
	// run tries it in a cell, alone without one.
	run   func(*cell)
	alone func(*testing.T, peers.Kind)
	// mesh makes a node of the mesh of every router.
	mesh bool
	// elsewhere are the tests that try it, "package: Test, package: Test".
	elsewhere string
	// cannot names the sides for which the rule is not, each with the reason.
	cannot map[side]string
	// differs names the kinds that do something else than others, which the rule knows.
	differs map[peers.Kind]string
}

// not gives a reason for some sides.
func not(why string, which func(side) bool) map[side]string {
	out := make(map[side]string)
	for _, s := range sides() {
		if which(s) {
			out[s] = why
		}
	}
	return out
}

func merged(all ...map[side]string) map[side]string {
	out := make(map[side]string)
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}

func inMesh(s side) bool { return s.mesh }

// onlyBIRD1Mesh leaves one column.
func onlyBIRD1Mesh(s side) bool { return s != side{peers.BIRD1, true} }

const (
	birdMesh   = "a column of its own has it"
	oneSession = "a mesh has one session with each node"
	linkDown   = "may end its sessions when a link goes down"
	noForward  = "says that it has not kept its forwarding state, with a restart time of 0: its routes go when it does, and come back with it"
	bitLost    = "may drop our routes when the session is back, until we announce them again at once: GoBGP sets the forwarding bit after restarts only"
)

func rules() []rule {
	return []rule{
		{name: "routes", says: "sessions of both families come up; routes go both ways, are withdrawn, and announced again", run: routes},
		{name: "node of the mesh", says: "the same over iBGP as another node of the cluster, with the metric in LOCAL_PREF", run: routes, mesh: true,
			cannot: not(birdMesh, func(s side) bool { return s.mesh || s.kind == peers.BIRD1 || s.kind == peers.BIRD2 })},
		{name: "two top-of-rack routers", says: "equal paths of two are one route with two next hops; one that withdraws, is shut or loses its link leaves the other", alone: twoToRs,
			cannot: not(oneSession, inMesh), differs: map[peers.Kind]string{peers.FRR: frrMapped}},
		{name: "four-octet AS", says: "AS numbers that two octets do not hold (RFC 6793)", run: fourOctets},
		{name: "communities", says: "standard and large ones, both ways", run: communities},
		{name: "MD5", says: "password right, another at one end, changed at the other too", run: md5},
		{name: "TTL security", says: "on at both ends, off at one, on again (RFC 5082)", run: ttlSecurity, cannot: not("Calico has ttlSecurity for BGPPeers only", inMesh)},
		{name: "we restart", says: "the daemon is killed and comes back: the other end keeps its routes, in the kernel too", run: weRestart},
		{name: "it restarts", says: "the other end is killed and comes back with less: what it still has is never lost, the rest goes", run: itRestarts,
			differs: map[peers.Kind]string{peers.OpenBGPD: noForward}},
		{name: "it does not return", says: "killed for longer than its restart time: its routes go", run: itDoesNotReturn, differs: map[peers.Kind]string{peers.OpenBGPD: noForward}},
		{name: "connections break", says: "TCP connections are lost and nobody has restarted: both keep what they have", run: connectionsBreak,
			differs: map[peers.Kind]string{peers.BIRD2: bitLost, peers.BIRD1: bitLost, peers.FRR: bitLost, peers.OpenBGPD: noForward}},
		{name: "silence", says: "packets are lost and no carrier: the hold time ends the sessions, which come back with the path", run: silence},
		{name: "flap", says: "routes come and go faster than anybody looks; the link goes down and up three times", run: flap,
			differs: map[peers.Kind]string{peers.BIRD2: linkDown, peers.BIRD1: linkDown, peers.FRR: linkDown}},
		{name: "it sends too much", says: "more prefixes than `caracal.net/max-prefixes`: Cease, its routes go; with a greater bound it is back at once", run: itSendsTooMuch,
			differs: map[peers.Kind]string{peers.FRR: "sends our own routes back, which count"}},
		{name: "we send too much", says: "more prefixes than the other end takes: it is told of, with the remedy", run: weSendTooMuch,
			differs: map[peers.Kind]string{peers.FRR: "looks at its count before the last prefix is in it"}},
		{name: "it says goodbye", says: "sessions are shut at the other end (Cease) and opened again", run: itSaysGoodbye},
		{name: "we say goodbye", says: "the BGPPeers, or the Node, are deleted: routes go at once at both ends; and written again", run: weSayGoodbye},
		{name: "wrong AS", says: "OPEN Message Error/Bad Peer AS at both ends, with the remedy; then the right one", run: wrongAS},
		{name: "mixed mesh", says: "two nodes of ours and two of BIRD 1.6 as Calico configures them, a node of either kind killed under a stream of packets", elsewhere: "matrix: TestMixedMesh",
			cannot: not("the mesh is BIRD 1.6's, from which Calico's branched off", onlyBIRD1Mesh)},
		{name: "mixed mesh, IPIP", says: "the same in two subnets with IPIP (Always and CrossSubnet), VXLAN and IPv6, in the guest kernel: equal routes at nodes of both kinds, encapsulation looked at on the wire; BIRD's nodes become ours and BIRD's again without a lost packet. What Calico adds to BIRD for IPIP has a stand-in", elsewhere: "matrix: TestMixedMeshIPIP",
			cannot: not("the mesh is BIRD 1.6's, from which Calico's branched off", onlyBIRD1Mesh)},
		{name: "route reflector", says: "the mesh moves to a reflector of either kind and back; blocks come and go everywhere; reflector and clients are killed under a stream of packets, of which ours lose none", elsewhere: "matrix: TestMixedReflectors",
			cannot: not("the mesh is BIRD 1.6's, from which Calico's branched off", onlyBIRD1Mesh)},
		{name: "BFD", says: "one hop and several, both families, with values that change at either end; with two top-of-rack routers over one IPv4 hop traffic moves before BGP notices, and our restart is not seen", elsewhere: "peers: TestBFD, interop: TestBFD",
			cannot: merged(not("tried with top-of-rack routers", inMesh), not("has the BFD of BIRD 2, from the same source", func(s side) bool { return !s.mesh && s.kind == peers.BIRD1 }),
				not("has no BFD", func(s side) bool { return !s.mesh && s.kind != peers.BIRD1 && !s.kind.BFD() }))},
		{name: "unnumbered links", says: "ToRs and nodes over links without IPv4 addresses: routes by IPv6 gateways carry packets and follow the host's from one link to the other without a loss, and so do VXLAN and IPIP over them; IPv6 next hops of IPv4 prefixes (TestIPv6NextHops)", elsewhere: "interop: TestUnnumbered",
			cannot: not("the fabric is FRR's, and BIRD 2 announces the IPv6 next hops", func(s side) bool { return s.mesh || s.kind != peers.FRR && s.kind != peers.BIRD2 })},
		{name: "Services", says: "addresses of a Service come with its data plane and go with its last endpoint", elsewhere: "interop: TestServices",
			cannot: not("announcements of ours like any others", func(s side) bool { return s.mesh || s.kind != peers.BIRD2 && s.kind != peers.FRR })},
	}
}

// frrMapped is what test/peers has a route map for.
const frrMapped = "announces IPv6 routes with an IPv4-mapped next hop if it sees its IPv4 address first when a link comes back; we refuse that with the reason. " +
	"`set ipv6 next-hop global` in a route map towards us avoids it, which it has here"

// TestMatrix is the table.
func TestMatrix(t *testing.T) {
	t.Parallel() // else no other test begins before its last cell ends
	for _, r := range rules() {
		for _, at := range sides() {
			if r.elsewhere != "" {
				continue
			}
			t.Run(strings.ReplaceAll(r.name, " ", "-")+"/"+at.String(), func(t *testing.T) {
				if why := r.cannot[at]; why != "" {
					t.Log("not tried: " + why)
					return
				}
				t.Parallel()
				if r.alone != nil {
					r.alone(t, at.kind)
					return
				}
				at.mesh = at.mesh || r.mesh
				r.run(newCell(t, at))
			})
		}
	}
}
