package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/routes"
)

// kernelLog stands for programmer and speaker: it keeps what each owner wants and the order of what was said.
type kernelLog struct {
	wants   map[routes.Owner]map[routes.Key]routes.Route
	links   map[routes.Owner][]string
	awaited []routes.Owner
	synced  map[routes.Owner]bool
	within  []string
	speaker *bgp.Config
	order   []string
	applied []routes.Owner
}

func newKernelLog() *kernelLog {
	return &kernelLog{wants: map[routes.Owner]map[routes.Key]routes.Route{}, links: map[routes.Owner][]string{}, synced: map[routes.Owner]bool{}}
}

func (k *kernelLog) Expect(owners ...routes.Owner) {
	k.awaited = owners
	clear(k.synced)
}

func (k *kernelLog) InSync(o routes.Owner) { k.synced[o] = true }

func (k *kernelLog) Within(dsts ...netip.Prefix) {
	k.within = nil
	for _, d := range dsts {
		k.within = append(k.within, d.String())
	}
	k.order = append(k.order, "within "+strings.Join(k.within, " "))
}

func (k *kernelLog) Set(cfg *bgp.Config) {
	k.speaker = cfg
	k.order = append(k.order, fmt.Sprintf("speaker %t", cfg != nil))
}

func (k *kernelLog) Apply(o routes.Owner, c routes.Change) {
	k.applied = append(k.applied, o)
	if c.Whole || k.wants[o] == nil {
		k.wants[o] = map[routes.Key]routes.Route{}
	}
	for _, key := range c.Withdraw {
		delete(k.wants[o], key)
	}
	for _, r := range c.Routes {
		k.wants[o][r.Key()] = r
	}
	if c.Links != nil {
		k.links[o] = nil
		for _, l := range c.Links {
			k.links[o] = append(k.links[o], l.Name)
		}
	}
	if c.Whole && len(c.Routes) > 0 {
		k.order = append(k.order, "wants of "+string(o))
	}
	if c.Whole && len(c.Routes) == 0 {
		k.order = append(k.order, "nothing from "+string(o))
	}
}

// allowed reports whether deletions are allowed: every awaited owner is in sync.
func (k *kernelLog) allowed() bool {
	return !slices.ContainsFunc(k.awaited, func(o routes.Owner) bool { return !k.synced[o] })
}

// installable returns the prefixes an owner wants that can be programmed.
func (k *kernelLog) installable(o routes.Owner) []string {
	var out []string
	for key, r := range k.wants[o] {
		if r.Unroutable == "" {
			out = append(out, key.Dst.String())
		}
	}
	slices.Sort(out)
	return out
}

// sampleState is a cluster of two nodes in two subnets with a VXLAN and an IPIP pool, each node with a block of each.
func sampleState(backend cluster.Backend, withSelf bool) *cluster.State {
	b := cluster.NewBuilder()
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	b.SetPool(&cluster.Pool{Name: "vx", CIDR: prefix("10.1.0.0/16"), VXLANMode: cluster.Always, BlockSize: 26, Workload: true, Tunnel: true})
	b.SetPool(&cluster.Pool{Name: "ip", CIDR: prefix("10.2.0.0/16"), IPIPMode: cluster.Always, BlockSize: 26, Workload: true, Tunnel: true})
	for i, name := range []string{"a", "b"} {
		if name == "a" && !withSelf {
			continue
		}
		b.SetNode(&cluster.Node{Name: name, Addr4: prefix(fmt.Sprintf("192.0.2.%d/25", 1+128*i)),
			VXLANAddr4: addr(fmt.Sprintf("10.1.%d.0", i)), IPIPAddr: addr(fmt.Sprintf("10.2.%d.0", i))})
		for _, pool := range []int{1, 2} {
			cidr := prefix(fmt.Sprintf("10.%d.%d.0/26", pool, i))
			b.SetBlock(&cluster.Block{CIDR: cidr, Node: name})
			b.SetAffinity(&cluster.Affinity{Node: name, CIDR: cidr, State: cluster.Confirmed})
		}
	}
	b.SetBackend(backend)
	return b.State()
}

func sampleHost() *routes.Host {
	return routes.NewHost([]routes.Interface{{Name: "eth0", Index: 2, MTU: 1500, Up: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/25")}}}, nil, nil)
}

func newSample() (*controller, *kernelLog) {
	k := newKernelLog()
	return newController("a", cluster.BackendBird, slog.New(slog.DiscardHandler), k, k), k
}

// step gives the controller an update and lets it plan once.
func (c *controller) step(u datastore.Update) {
	c.setUpdate(u)
	c.plan(c.take())
}

// learn makes the Speaker say that node b announces its IPIP block, and that every peer has been heard out.
func (c *controller) learn() {
	c.addLearned([]bgp.Learned{{Prefix: netip.MustParsePrefix("10.2.1.0/26"), Paths: []bgp.Path{{
		Prefix: netip.MustParsePrefix("10.2.1.0/26"), Peer: "Mesh_192_0_2_129", PeerAddr: netip.MustParseAddr("192.0.2.129"),
		NextHop: netip.MustParseAddr("192.0.2.129"), LocalPref: 2147482623, Best: true}}}})
	c.setBGPInSync()
	c.plan(c.take())
}

// TestKeptState: a copy of the state is routed by as a whole, BGP with it, and nobody is in sync for it, so nothing is deleted; the datastore
// itself takes over as if nothing had been.
func TestKeptState(t *testing.T) {
	for _, backend := range []cluster.Backend{cluster.BackendBird, cluster.BackendVXLAN} {
		c, k := newSample()
		c.setHost(sampleHost())
		stale := datastore.Update{State: sampleState(backend, true), Stale: time.Unix(1, 0), Err: errors.New("away")}
		c.setUpdate(stale)
		c.setBGPInSync()
		c.plan(c.take())
		if len(k.installable(routes.OwnerVXLAN)) == 0 || (k.speaker != nil) != (backend == cluster.BackendBird) || k.allowed() {
			t.Errorf("%s: VXLAN routes %v, Speaker %v, deletions allowed %t", backend, k.installable(routes.OwnerVXLAN), k.speaker, k.allowed())
		}
		if v := c.View(); !v.planned || v.inSync || v.stale.IsZero() {
			t.Errorf("%s: view %+v", backend, v)
		}
		was := k.installable(routes.OwnerVXLAN)
		c.setUpdate(datastore.Update{State: sampleState(backend, true), InSync: true})
		c.setBGPInSync()
		c.plan(c.take())
		if !k.allowed() || !slices.Equal(was, k.installable(routes.OwnerVXLAN)) {
			t.Errorf("%s: deletions allowed %t, VXLAN routes %v, before %v", backend, k.allowed(), k.installable(routes.OwnerVXLAN), was)
		}
	}
	c, k := newSample() // a copy that says none is no reason to take everything away
	c.setHost(sampleHost())
	c.setUpdate(datastore.Update{State: sampleState(cluster.BackendNone, true), Stale: time.Unix(1, 0)})
	c.plan(c.take())
	if len(k.order) > 0 || len(k.synced) > 0 {
		t.Errorf("a copy that says none: %v, in sync %v", k.order, k.synced)
	}
}

// TestLearnedPathsArePlannedAlone: paths that come alone cost no plan of anything else, and lead to what a whole plan leads to. Any other
// news in between is planned as ever.
func TestLearnedPathsArePlannedAlone(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	c.step(datastore.Update{State: sampleState("", true), InSync: true})
	c.learn()
	learn := func(with func()) {
		k.applied = nil
		p := netip.MustParsePrefix("10.2.1.64/26")
		c.addLearned([]bgp.Learned{{Prefix: p, Paths: []bgp.Path{{Prefix: p, Peer: "Mesh_192_0_2_129", PeerAddr: netip.MustParseAddr("192.0.2.129"),
			NextHop: netip.MustParseAddr("192.0.2.129"), LocalPref: 2147482623, Best: true}}}})
		with()
		c.plan(c.take())
		if got := k.installable(routes.OwnerBGP); !slices.Contains(got, p.String()) {
			t.Errorf("the path made no route: %v", got)
		}
		c.addLearned([]bgp.Learned{{Prefix: p}})
		c.plan(c.take())
		if got := k.installable(routes.OwnerBGP); slices.Contains(got, p.String()) {
			t.Errorf("the path is gone, its route is not: %v", got)
		}
	}
	learn(func() {})
	if want := []routes.Owner{routes.OwnerBGP, routes.OwnerBGP}; !slices.Equal(k.applied, want) {
		t.Errorf("planned %v, want %v", k.applied, want)
	}
	for what, news := range map[string]func(){
		"host":  func() { c.setHost(sampleHost()) },
		"state": func() { c.setUpdate(datastore.Update{State: sampleState("", true), InSync: true}) },
		"sync":  c.setBGPInSync,
	} {
		learn(news)
		if !slices.Contains(k.applied, routes.OwnerVXLAN) {
			t.Errorf("%s: planned %v alone", what, k.applied)
		}
	}
	c.step(datastore.Update{State: sampleState(cluster.BackendVXLAN, true), InSync: true})
	k.applied = nil
	c.learn()
	if slices.Contains(k.applied, routes.OwnerBGP) || len(k.installable(routes.OwnerBGP)) > 0 {
		t.Errorf("backend vxlan: planned %v, routes %v", k.applied, k.installable(routes.OwnerBGP))
	}
}

func TestNothingIsPlannedBeforeDatastoreAndHostAreKnown(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	c.step(datastore.Update{})
	if len(k.wants) != 0 || len(k.synced) != 0 {
		t.Fatalf("before the datastore is in sync: wants %v, in sync %v", k.wants, k.synced)
	}
	c, k = newSample()
	c.step(datastore.Update{State: sampleState("", true), InSync: true})
	if len(k.wants) != 0 || len(k.synced) != 0 {
		t.Fatalf("before the host is known: wants %v, in sync %v", k.wants, k.synced)
	}
}

// TestBrokenFileAtStart: what of the datastore can be read is routed on, nothing is deleted and nothing announced.
func TestBrokenFileAtStart(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	c.step(datastore.Update{State: sampleState("", true), Err: errors.New("ippool.yaml:3: not a YAML document")})
	if got := k.installable(routes.OwnerVXLAN); len(got) != 2 {
		t.Errorf("wants %v, want the routes of the pool that can be read", got)
	}
	if k.speaker != nil || len(k.synced) != 0 || k.awaited == nil {
		t.Errorf("Speaker wanted: %t, in sync: %v of %v", k.speaker != nil, k.synced, k.awaited)
	}
	c.step(datastore.Update{State: sampleState(cluster.BackendVXLAN, true), InSync: true})
	if got := k.installable(routes.OwnerVXLAN); len(got) != 2 || !k.allowed() {
		t.Errorf("after the file was mended: wants %v, deletion allowed %t", got, k.allowed())
	}
}

func TestDeletionWaitsForBGP(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	c.step(datastore.Update{State: sampleState("", true), InSync: true})
	if k.allowed() {
		t.Fatal("deletion is allowed before the Speaker has heard its peers out")
	}
	c.learn()
	if !k.allowed() {
		t.Fatalf("every source is in sync, but only %v are marked", k.synced)
	}
}

func TestMissingOwnNodeKeepsThePlan(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	c.step(datastore.Update{State: sampleState("", true), InSync: true})
	c.learn()
	before := k.installable(routes.OwnerVXLAN)
	c.step(datastore.Update{State: sampleState("", false), InSync: true})
	if after := k.installable(routes.OwnerVXLAN); len(before) == 0 || !slices.Equal(before, after) {
		t.Fatalf("routes before %v, after our Node went missing %v", before, after)
	}
	if p := c.View().problems; !slices.ContainsFunc(p, func(p cluster.Problem) bool { return p.Object == "Node a" }) {
		t.Fatalf("the missing Node is not reported: %v", p)
	}
}

// TestBackendSwitches goes through all six directions and compares what is wanted with what a start in the new backend wants.
func TestBackendSwitches(t *testing.T) {
	all := []cluster.Backend{cluster.BackendBird, cluster.BackendVXLAN, cluster.BackendNone}
	type wish struct{ vxlan, bgp, links []string }
	wishOf := func(k *kernelLog) wish {
		links := slices.Concat(k.links[routes.OwnerVXLAN], k.links[routes.OwnerIPIP])
		slices.Sort(links)
		return wish{k.installable(routes.OwnerVXLAN), k.installable(routes.OwnerBGP), links}
	}
	want := map[cluster.Backend]wish{
		cluster.BackendBird:  {vxlan: []string{"10.1.0.0/26", "10.1.1.0/26"}, bgp: []string{"10.2.0.0/26", "10.2.1.0/26"}, links: []string{"tunl0", "vxlan.calico"}},
		cluster.BackendVXLAN: {vxlan: []string{"10.1.0.0/26", "10.1.1.0/26"}, links: []string{"vxlan.calico"}},
		cluster.BackendNone:  {},
	}
	for _, from := range all {
		for _, to := range all {
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				c, k := newSample()
				c.setHost(sampleHost())
				c.step(datastore.Update{State: sampleState(from, true), InSync: true})
				if from == cluster.BackendBird {
					c.learn()
				}
				k.order = nil
				c.step(datastore.Update{State: sampleState(to, true), InSync: true})
				if to == cluster.BackendBird && from != to {
					if k.allowed() {
						t.Error("deletion is allowed before the new Speaker has heard its peers out")
					}
				}
				if to == cluster.BackendBird {
					c.learn()
				}
				if got := wishOf(k); fmt.Sprint(got) != fmt.Sprint(want[to]) {
					t.Errorf("wants %v, a node started so wants %v", got, want[to])
				}
				if (k.speaker != nil) != (to == cluster.BackendBird) {
					t.Errorf("a Speaker is wanted: %t", k.speaker != nil)
				}
				if !k.allowed() {
					t.Errorf("deletion is not allowed, %v of %v are in sync", k.synced, k.awaited)
				}
				if from == cluster.BackendBird && to != from && (len(k.order) == 0 || k.order[0] != "speaker false") {
					t.Errorf("order %v: the Speaker must be silenced before its paths are dropped", k.order)
				}
			})
		}
	}
}

func TestPathsOfAStoppedSpeakerAreForgotten(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	for _, backend := range []cluster.Backend{"", cluster.BackendVXLAN} {
		c.step(datastore.Update{State: sampleState(backend, true), InSync: true})
		c.learn()
	}
	c.step(datastore.Update{State: sampleState(cluster.BackendBird, true), InSync: true})
	if got := k.installable(routes.OwnerBGP); slices.Contains(got, "10.2.1.0/26") {
		t.Fatalf("wants %v from the Speaker before last", got)
	}
	if k.allowed() {
		t.Fatal("the new Speaker counts as in sync because the old one was")
	}
}
