package gobgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
)

// inCluster has each of some configurations know the others as nodes of the cluster.
func inCluster(cfgs ...*bgp.Config) {
	for _, c := range cfgs {
		c.Nodes = nil
		for _, d := range cfgs {
			if c != d {
				c.Nodes = append(c.Nodes, d.ListenAddrs[0])
			}
		}
		slices.SortFunc(c.Nodes, netip.Addr.Compare)
	}
}

// reflected makes two configurations those of a reflector and its client: both dial, as in a BGPPeer that selects its peers.
func reflected(rr, client *bgp.Config) {
	peerWith(rr, client)
	p, q := &rr.Peers[len(rr.Peers)-1], &client.Peers[len(client.Peers)-1]
	p.Passive, q.Passive = false, false
	p.Client, p.ClusterID = true, rr.RouterID
}

// TestMeshToReflector: a mesh becomes clients of a reflector, and then a mesh again or those of another. The nodes hear of it one after the other, in every order that
// matters, and none loses a route for a moment.
func TestMeshToReflector(t *testing.T) {
	notUnderRace(t)
	for _, tc := range []struct {
		name          string
		centre, after int // the reflectors; after: the next one, -1 = a mesh again
		order         []int
	}{
		{"mesh, reflector first", 3, -1, []int{3, 0, 1, 2}},
		{"another reflector of a lower address", 3, 0, []int{0, 1, 2, 3}},
		{"another reflector of a higher address", 0, 3, []int{0, 1, 2, 3}}, // which prefers what comes through the former one
	} {
		t.Run(tc.name, func(t *testing.T) {
			parallel(t)
			port := testPort()
			var mesh, star, moved [4]bgp.Config
			for i := range mesh {
				mesh[i] = config(fmt.Sprintf("127.1.%d.%d", 220+4*tc.centre+tc.after+1, i+1), port, fmt.Sprintf("10.1.%d.0/26", i))
				star[i], moved[i] = mesh[i], mesh[i]
			}
			fullMesh(&mesh[0], &mesh[1], &mesh[2], &mesh[3])
			for i := range 4 {
				if i != tc.centre {
					reflected(&star[tc.centre], &star[i])
				}
				if tc.after >= 0 && i != tc.after {
					reflected(&moved[tc.after], &moved[i])
				}
			}
			inCluster(&mesh[0], &mesh[1], &mesh[2], &mesh[3])
			inCluster(&star[0], &star[1], &star[2], &star[3])
			inCluster(&moved[0], &moved[1], &moved[2], &moved[3])
			var nodes []*node
			for _, c := range mesh {
				nodes = append(nodes, start(t, c, gobgp.Options{Reflecting: 8 * time.Second}))
			}
			t.Cleanup(func() {
				if !t.Failed() {
					return
				}
				for _, n := range nodes {
					for _, p := range n.Peers() {
						t.Logf("%s: %s %s %s restarting %t eor %t client %t since %v ups %d rcv %d adv %d loop %d lasterr %s", n.addr, p.Name, p.State, p.Source, p.Restarting, p.EndOfRIB, p.Client, time.Since(p.Since), p.Ups, p.Received, p.Advertised, p.Looped, p.LastError)
					}
					t.Logf("%q", n.table())
				}
			})
			sessions := func(of [4]bgp.Config) {
				t.Helper()
				for i, n := range nodes {
					eventually(t, "sessions of "+n.addr.String(), func() string {
						all := n.Peers()
						if len(all) != len(of[i].Peers) {
							return fmt.Sprintf("%d, want %d: %s", len(all), len(of[i].Peers), all[0].Source)
						}
						for _, p := range all {
							if p.State != bgp.Established || !p.EndOfRIB || p.Source != "test" {
								return fmt.Sprintf("%s %s %s", p.Name, p.State, p.Source)
							}
						}
						return ""
					})
					eventually(t, "routes of "+n.addr.String(), func() string {
						if got := n.table(); len(got) != 3 {
							return fmt.Sprintf("%q", got)
						}
						return ""
					})
				}
			}
			sessions(mesh)
			then := moved
			if tc.after < 0 {
				then = mesh
			}
			for _, to := range [][4]bgp.Config{star, then} {
				began := time.Now()
				for _, i := range tc.order {
					nodes[i].cfg = to[i]
					nodes[i].apply(t)
				}
				sessions(to)
				t.Logf("took %v", time.Since(began).Round(time.Millisecond))
				for _, n := range nodes {
					for i := range 4 {
						if lost := n.losses(fmt.Sprintf("10.1.%d.0/26", i)); lost > 0 {
							t.Errorf("%s lost 10.1.%d.0/26 %d times", n.addr, i, lost)
						}
					}
				}
			}
		})
	}
}

// TestOverlapEnds: a session that is wanted no more goes on while its replacement has not come, not longer than asked for, and not at all
// with what is no node of the cluster any more.
func TestOverlapEnds(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	a, b, gone := config("127.1.30.1", port), config("127.1.30.2", port, "10.1.0.0/26"), config("127.1.30.3", port, "10.1.1.0/26")
	peerWith(&a, &b)
	peerWith(&a, &gone)
	inCluster(&a, &b)
	nb, ngone := start(t, b, gobgp.Options{}), start(t, gone, gobgp.Options{})
	const most = 3 * time.Second
	na := start(t, a, gobgp.Options{Overlap: most})
	na.knows(t, "10.1.0.0/26 Mesh_127_1_30_2 via 127.1.30.2", "10.1.1.0/26 Mesh_127_1_30_3 via 127.1.30.3")
	nb.up(t, "127.1.30.1")
	_ = ngone
	began := time.Now()
	na.cfg.Peers = []bgp.Peer{peering(a.ListenAddrs[0], netip.MustParseAddr("127.1.30.9"), port, 64512)} // never comes
	na.apply(t)
	na.knows(t, "10.1.0.0/26 Mesh_127_1_30_2 via 127.1.30.2")
	if p := na.status("127.1.30.2"); p.State != bgp.Established || p.Source != "test, replaced: goes on until its routes have come another way" {
		t.Errorf("%+v", p)
	}
	na.knows(t)
	if d := time.Since(began); d < most {
		t.Errorf("was ended after %v, though nothing had come in its place", d)
	}
	if p := na.Peers(); len(p) != 1 {
		t.Errorf("sessions %+v", p)
	}
	eventually(t, "the other side keeps what it had", func() string {
		if p := nb.status("127.1.30.1"); !p.Restarting {
			return string(p.State)
		}
		return ""
	})
}
