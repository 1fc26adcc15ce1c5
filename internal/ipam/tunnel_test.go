package ipam

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// addresses returns a node's tunnel addresses as text, in the order of tunnels().
func addresses(t testing.TB, store datastore.Store, node string) (out [3]string) {
	t.Helper()
	n := getNode(t, store, node)
	for i, k := range tunnels() {
		out[i] = k.value(n)
	}
	return out
}

func ensure(t testing.TB, c *Client) {
	t.Helper()
	if err := c.EnsureTunnelAddresses(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// change edits a pool in the store.
func change(t testing.TB, store datastore.Store, pool string, edit func(*calico.IPPoolSpec)) {
	t.Helper()
	obj, err := store.Get(t.Context(), calico.KindIPPool, pool)
	if err != nil {
		t.Fatal(err)
	}
	edit(&obj.(*calico.IPPool).Spec)
	if _, err := store.Update(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
}

func allPools() []calico.Object {
	return []calico.Object{ipPool("ipip", "10.1.0.0/24", ipip), ipPool("vxlan", "10.2.0.0/24", vxlan),
		ipPool("vxlan6", "fd00:2::/112", vxlan), ipPool("plain", "10.3.0.0/24")}
}

// contains reports which of the addresses lie in which pools.
func inPools(got [3]string, cidrs ...string) bool {
	for i, cidr := range cidrs {
		if cidr == "" {
			if got[i] != "" {
				return false
			}
			continue
		}
		a, err := netip.ParseAddr(got[i])
		if err != nil || !netip.MustParsePrefix(cidr).Contains(a) {
			return false
		}
	}
	return true
}

func TestTunnelAddresses(t *testing.T) {
	store := datastoretest.NewMemory(append(allPools(), calicoNode("node-a"))...)
	counted := datastoretest.NewFaulty(store, datastoretest.At(0, datastoretest.NoFault))
	c := client(t, counted, "node-a")
	ensure(t, c)
	first := addresses(t, store, "node-a")
	if !inPools(first, "10.1.0.0/24", "10.2.0.0/24", "fd00:2::/112") {
		t.Errorf("addresses %q", first)
	}
	if n := getNode(t, store, "node-a"); n.Spec.BGP.IPv4Address != "192.0.2.1/24" {
		t.Errorf("the node's own address is %q", n.Spec.BGP.IPv4Address)
	}
	wantCheck(t, store)
	writes := counted.Writes()
	ensure(t, c)
	ensure(t, client(t, counted, "node-a")) // with a repair, as after a restart
	if counted.Writes() != writes || addresses(t, store, "node-a") != first {
		t.Errorf("%d writes where nothing had changed; addresses %q before, %q now", counted.Writes()-writes, first, addresses(t, store, "node-a"))
	}
}

// TestTunnelPools: which pools ask for which addresses.
func TestTunnelPools(t *testing.T) {
	for _, c := range []struct {
		name string
		edit map[string]func(*calico.IPPoolSpec)
		want [3]string
	}{
		{"IPIP off", map[string]func(*calico.IPPoolSpec){"ipip": func(s *calico.IPPoolSpec) { s.IPIPMode = "Never" }}, [3]string{"", "10.2.0.0/24", "fd00:2::/112"}},
		{"IPIP to VXLAN", map[string]func(*calico.IPPoolSpec){"ipip": func(s *calico.IPPoolSpec) { s.IPIPMode, s.VXLANMode = "", "Always" },
			"vxlan": disabled}, [3]string{"", "10.1.0.0/24", "fd00:2::/112"}},
		{"disabled", map[string]func(*calico.IPPoolSpec){"ipip": disabled, "vxlan": disabled, "vxlan6": disabled}, [3]string{"", "", ""}},
		{"no tunnels", map[string]func(*calico.IPPoolSpec){"vxlan": uses("Workload")}, [3]string{"10.1.0.0/24", "", "fd00:2::/112"}},
		{"not this node", map[string]func(*calico.IPPoolSpec){"vxlan6": selector("zone == 'b'")}, [3]string{"10.1.0.0/24", "10.2.0.0/24", ""}},
		{"manual is as good", map[string]func(*calico.IPPoolSpec){"vxlan": manual}, [3]string{"10.1.0.0/24", "10.2.0.0/24", "fd00:2::/112"}},
	} {
		for _, when := range []string{"from the start", "later"} {
			t.Run(c.name+" "+when, func(t *testing.T) {
				store := datastoretest.NewMemory(append(allPools(), calicoNode("node-a", "zone=a"))...)
				client := client(t, store, "node-a")
				if when == "later" {
					ensure(t, client)
				}
				for pool, edit := range c.edit {
					change(t, store, pool, edit)
				}
				ensure(t, client)
				if got := addresses(t, store, "node-a"); !inPools(got, c.want[:]...) {
					t.Errorf("addresses %q, want of %q", got, c.want)
				}
				wantCheck(t, store)
			})
		}
	}
}

// TestTunnelPoolSpoilt: a slip in a pool costs the node nothing that it has, neither at once nor at the next start, and the slip mended is as if nothing had been;
// a pool that is properly taken away then takes its address with it.
func TestTunnelPoolSpoilt(t *testing.T) {
	for name, spoil := range map[string]func(*calico.IPPoolSpec){
		"both modes":    func(s *calico.IPPoolSpec) { s.IPIPMode, s.VXLANMode = "Always", "Always" },
		"selector":      selector("zone = 'a'"),
		"block size":    size(19),
		"unknown mode":  func(s *calico.IPPoolSpec) { s.IPIPMode, s.VXLANMode = "always", "always" },
		"range":         func(s *calico.IPPoolSpec) { s.CIDR = "ten" },
		"bits in range": func(s *calico.IPPoolSpec) { s.CIDR = strings.Replace(s.CIDR, "0/", "5/", 1) },
		"uses":          uses("tunnel"),
	} {
		t.Run(name, func(t *testing.T) {
			store := datastoretest.NewMemory(append(allPools(), calicoNode("node-a"))...)
			c := client(t, store, "node-a")
			ensure(t, c)
			before := addresses(t, store, "node-a")
			good := map[string]calico.IPPoolSpec{}
			for _, p := range []string{"ipip", "vxlan"} {
				change(t, store, p, func(s *calico.IPPoolSpec) { good[p] = *s; spoil(s) })
			}
			ensure(t, c)
			ensure(t, client(t, store, "node-a"))
			if got := addresses(t, store, "node-a"); got != before {
				t.Errorf("addresses %q, before %q", got, before)
			}
			for p, spec := range good {
				change(t, store, p, func(s *calico.IPPoolSpec) { *s = spec })
			}
			ensure(t, c)
			if got := addresses(t, store, "node-a"); got != before {
				t.Errorf("mended: addresses %q, before %q", got, before)
			}
			wantCheck(t, store)
			change(t, store, "vxlan6", spoil) // of another range, so it is no reason to keep anything here
			change(t, store, "ipip", disabled)
			ensure(t, c)
			if got := addresses(t, store, "node-a"); name != "range" && (got[0] != "" || got[1] != before[1]) {
				t.Errorf("disabled: addresses %q, before %q", got, before)
			}
		})
	}
}

// TestTunnelTable is the table of reference 3.9: what the Node names and IPAM holds, and what becomes of it.
func TestTunnelTable(t *testing.T) {
	const handle = "vxlan-tunnel-addr-node-a"
	ours := map[string]string{"node": "node-a", "type": "vxlanTunnelAddress"}
	pod := map[string]string{"pod": "p", "namespace": "default", "node": "node-a"}
	for _, c := range []struct {
		name    string
		node    string // what the Node names
		addr    string // what is assigned, if anything
		handle  string
		attrs   map[string]string
		pool    bool   // there is a candidate pool
		want    string // "keep", "new", "none"
		release bool   // the assigned address is free afterwards
	}{
		{"no address", "", "", "", nil, true, "new", false},
		{"no address, one under our handle", "", "10.2.0.5", handle, ours, true, "new", true},
		{"ours", "10.2.0.5", "10.2.0.5", handle, ours, true, "keep", false},
		{"ours, outside the pools", "10.3.0.5", "10.3.0.5", handle, ours, true, "new", true},
		{"old data", "10.2.0.5", "10.2.0.5", "", nil, true, "keep", false},
		{"no attributes, a handle", "10.2.0.5", "10.2.0.5", "k8s-pod-network.1", nil, true, "new", false},
		{"a pod's", "10.2.0.5", "10.2.0.5", "k8s-pod-network.1", pod, true, "new", false},
		{"another node's", "10.2.0.5", "10.2.0.5", "vxlan-tunnel-addr-node-b", map[string]string{"node": "node-b", "type": "vxlanTunnelAddress"}, true, "new", false},
		{"another type's", "10.2.0.5", "10.2.0.5", "ipip-tunnel-addr-x", map[string]string{"node": "node-a", "type": "ipipTunnelAddress"}, true, "new", false},
		{"not assigned", "10.2.0.5", "", "", nil, true, "new", false},
		{"in no pool", "192.0.2.5", "", "", nil, true, "new", false},
		{"not assigned, another under our handle", "10.2.0.5", "10.2.0.9", handle, ours, true, "new", true},
		{"no pool, ours", "10.2.0.5", "10.2.0.5", handle, ours, false, "none", true},
		{"no pool, old data", "10.2.0.5", "10.2.0.5", "", nil, false, "none", true},
		{"no pool, a pod's", "10.2.0.5", "10.2.0.5", "k8s-pod-network.1", pod, false, "none", false},
		{"no pool, one under our handle", "", "10.2.0.5", handle, ours, false, "none", true},
		{"no pool, nothing", "", "", "", nil, false, "none", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, node := t.Context(), calicoNode("node-a")
			node.Spec.IPv4VXLANTunnelAddr = c.node
			store := datastoretest.NewMemory(node, ipPool("vxlan", "10.2.0.0/24", vxlan), ipPool("plain", "10.3.0.0/24"))
			if c.addr != "" {
				assigned(t, store, c.addr, c.handle, c.attrs)
			}
			if !c.pool {
				change(t, store, "vxlan", func(s *calico.IPPoolSpec) { s.VXLANMode = "Never" })
			}
			cl := client(t, store, "node-a")
			ensure(t, cl)
			got := addresses(t, store, "node-a")[1]
			switch {
			case c.want == "keep" && got != c.node, c.want == "none" && got != "",
				c.want == "new" && (got == "" || got == c.node || !netip.MustParsePrefix("10.2.0.0/24").Contains(netip.MustParseAddr(got))):
				t.Errorf("the node has %q, want %s of %q", got, c.want, c.node)
			}
			if got != "" {
				o, _ := cl.begin(ctx)
				h, err := o.lookup(ctx, netip.MustParseAddr(got))
				if err != nil || h == nil || h.handle != handle || cmp.Diff(ours, h.attrs) != "" {
					t.Errorf("the node's address is held as %+v, %v", h, err)
				}
			}
			if c.addr != "" && c.want != "keep" {
				o, _ := cl.begin(ctx)
				h, err := o.lookup(ctx, netip.MustParseAddr(c.addr))
				if err != nil || c.release != (h == nil) {
					t.Errorf("%s is held as %+v, %v; want released: %v", c.addr, h, err, c.release)
				}
			}
			if c.handle != "" { // old data has no handle to agree with before
				wantCheck(t, store)
			}
		})
	}
}

// assigned puts an address into the store as somebody once assigned it, without a handle if that is empty.
func assigned(t *testing.T, store *datastoretest.Memory, addr, handle string, attrs map[string]string) {
	t.Helper()
	use := handle
	if use == "" {
		use = "none"
	}
	a := netip.MustParseAddr(addr)
	c := client(t, store, "node-a")
	if err := c.AssignIP(t.Context(), a, use, attrs, ""); err != nil {
		t.Fatal(err)
	}
	if handle != "" {
		return
	}
	o, _ := c.begin(t.Context())
	cidr, _ := o.blockOf(t.Context(), a)
	b := getBlock(t, store, cidr.String())
	b.Spec.Attributes[0].HandleID = nil
	if _, err := store.Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	h, err := c.readHandle(t.Context(), use)
	if err != nil || store.Delete(t.Context(), h) != nil {
		t.Fatal(err)
	}
}

// TestTunnelFailuresStayApart: a full pool, a limit and a broken field each cost their own kind, and the Node never
// names what IPAM has not given (reference, sharp edges 33 and 34).
func TestTunnelFailuresStayApart(t *testing.T) {
	t.Run("full pool", func(t *testing.T) {
		store := datastoretest.NewMemory(append(allPools(), calicoNode("node-a"), calicoNode("node-b"), ipPool("tiny", "10.9.0.0/32", size(32)))...)
		if err := client(t, store, "node-b").AssignIP(t.Context(), netip.MustParseAddr("10.9.0.0"), "b", nil, ""); err != nil {
			t.Fatal(err)
		}
		c := client(t, store, "node-a")
		ensure(t, c)
		before := addresses(t, store, "node-a")
		change(t, store, "vxlan", disabled)
		change(t, store, "tiny", vxlan)
		wantIs(t, c.EnsureTunnelAddresses(t.Context()), ErrFull, "node node-a", "VXLAN", "tiny (10.9.0.0/32)", "add an IPPool")
		if got := addresses(t, store, "node-a"); got != [3]string{before[0], "", before[2]} {
			t.Errorf("addresses %q, before %q", got, before)
		}
		wantCheck(t, store)
		change(t, store, "vxlan", func(s *calico.IPPoolSpec) { s.Disabled = false })
		ensure(t, c)
		wantCheck(t, store)
	})
	t.Run("block limit", func(t *testing.T) {
		store := datastoretest.NewMemory(append(allPools(), calicoNode("node-a"),
			ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.StrictAffinity, s.MaxBlocksPerHost = true, 1 }))...)
		change(t, store, "ipip", func(s *calico.IPPoolSpec) { s.BlockSize = 32 })
		if _, err := client(t, store, "node-a").AutoAssign(t.Context(),
			Request{Family: cluster.IPv4, Num: 1, Handle: "h", Use: Workload, Pools: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}); err != nil {
			t.Fatal(err)
		}
		wantIs(t, client(t, store, "node-a").EnsureTunnelAddresses(t.Context()), ErrBlockLimit, "IPIP", "maxBlocksPerHost")
		if got := addresses(t, store, "node-a"); !inPools(got, "", "10.2.0.0/24", "fd00:2::/112") {
			t.Errorf("addresses %q", got)
		}
		wantCheck(t, store)
	})
	t.Run("unreadable field", func(t *testing.T) {
		node := calicoNode("node-a")
		node.Spec.BGP.IPv4IPIPTunnelAddr = "10.1.0.x"
		store := datastoretest.NewMemory(append(allPools(), node)...)
		err := client(t, store, "node-a").EnsureTunnelAddresses(t.Context())
		if err == nil || !strings.Contains(err.Error(), "spec.bgp.ipv4IPIPTunnelAddr") || !strings.Contains(err.Error(), "10.1.0.x") {
			t.Errorf("error %v", err)
		}
		if got := addresses(t, store, "node-a"); got[0] != "10.1.0.x" || !inPools([3]string{"", got[1], got[2]}, "", "10.2.0.0/24", "fd00:2::/112") {
			t.Errorf("addresses %q", got)
		}
	})
	t.Run("no node", func(t *testing.T) {
		store := datastoretest.NewMemory(allPools()...)
		wantIs(t, client(t, store, "node-a").EnsureTunnelAddresses(t.Context()), datastore.ErrNotFound, "Node node-a")
		if got := contents(t, store); len(got) != 0 {
			t.Error(got)
		}
	})
}

// TestTunnelPatchFails: a Node that cannot be written gets its addresses taken back; one that was written while the
// answer was lost keeps them.
func TestTunnelPatchFails(t *testing.T) {
	for _, c := range []struct {
		fault datastoretest.Fault
		kept  bool
	}{{datastoretest.Refuse, false}, {datastoretest.LoseAnswer, true}} {
		store := datastoretest.NewMemory(append(allPools(), calicoNode("node-a"))...)
		faulty := datastoretest.NewFaulty(store, func(_ int, verb string, _ calico.Kind) datastoretest.Fault {
			if verb == "patch" {
				return c.fault
			}
			return datastoretest.NoFault
		})
		err := client(t, faulty, "node-a").EnsureTunnelAddresses(t.Context())
		if err == nil || faulty.Fired() != 1 {
			t.Errorf("error %v, %d faults", err, faulty.Fired())
		}
		if got := addresses(t, store, "node-a"); (got[1] != "") != c.kept {
			t.Errorf("addresses %q, want them kept: %v", got, c.kept)
		}
		wantCheck(t, store)
	}
}

// TestTunnelContext: a pass whose context ends says so and the next one finishes the work.
func TestTunnelContext(t *testing.T) {
	store := datastoretest.NewMemory(append(allPools(), calicoNode("node-a"))...)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	faulty := datastoretest.NewFaulty(store, func(i int, _ string, _ calico.Kind) datastoretest.Fault {
		if n = i; i == 5 {
			cancel()
		}
		return datastoretest.NoFault
	})
	c := client(t, faulty, "node-a")
	if err := c.EnsureTunnelAddresses(ctx); !errors.Is(err, context.Canceled) || n < 5 {
		t.Errorf("error %v after %d writes", err, n)
	}
	ensure(t, c)
	wantCheck(t, store)
}

// TestTunnelKeepsOne: what else is under the tunnel's handle, in the same block and in another, is released; the
// Node's address stays.
func TestTunnelKeepsOne(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("vxlan", "10.2.0.0/29", size(30), vxlan), calicoNode("node-a"))
	c := client(t, store, "node-a")
	ensure(t, c)
	kept := addresses(t, store, "node-a")
	r := Request{Family: cluster.IPv4, Num: 5, Handle: "vxlan-tunnel-addr-node-a", Use: Tunnel,
		Attrs: map[string]string{"node": "node-a", "type": "vxlanTunnelAddress"}}
	mustAssign(t, c, r)
	ensure(t, c)
	if got := addresses(t, store, "node-a"); got != kept {
		t.Errorf("addresses %q, before %q", got, kept)
	}
	wantCheck(t, store)
}
