package vxlan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// world is a random cluster that changes a little at a time. Everything is drawn from a small range, so that conflicts,
// blocks inside blocks, tunnel ends in other nodes' blocks and addresses lent out and taken back happen all the time.
type world struct {
	r       *rand.Rand
	b       *cluster.Builder
	host    *routes.Host
	backend cluster.Backend
	six     bool
}

func (w *world) node() string { return fmt.Sprintf("n%d", w.r.IntN(6)) }

func (w *world) addr(net, last int) netip.Addr {
	if w.six {
		return netip.AddrFrom16([16]byte{0xfd, 13: byte(net), 15: byte(last)})
	}
	return netip.AddrFrom4([4]byte{10, byte(net), 0, byte(last)})
}

func (w *world) prefix(net, last, host int) netip.Prefix {
	a := w.addr(net, last)
	p, _ := a.Prefix(a.BitLen() - host)
	return p
}

// aBlock draws a CIDR; net 0 to 2 lie in pools that may be there, 3 never does, and a /26 may hold a /30 and single addresses.
func (w *world) aBlock() netip.Prefix {
	return w.prefix(w.r.IntN(4), w.r.IntN(8)*2, [...]int{6, 6, 3, 0}[w.r.IntN(4)])
}

func (w *world) step() {
	w.six = w.r.IntN(2) == 0
	switch w.r.IntN(12) {
	case 0, 1, 2:
		w.setNode()
	case 3:
		w.b.DeleteNode(w.node())
	case 4, 5, 6, 7:
		w.setBlock()
	case 8:
		w.b.DeleteBlock(w.aBlock())
	case 9:
		w.setPool()
	case 10:
		w.setHost()
	default:
		switch w.r.IntN(6) {
		case 0:
			w.backend = [...]cluster.Backend{cluster.BackendBird, cluster.BackendVXLAN, cluster.BackendNone}[w.r.IntN(3)]
		case 1, 2:
			w.b.SetFelix(cluster.FelixConfig{VXLANMTU: w.r.IntN(2) * 1400, VXLANVNI: 4096, VXLANPort: uint16(4789 + w.r.IntN(2))})
		}
	}
}

func (w *world) setNode() {
	six := w.six
	n := &cluster.Node{Name: w.node(), Labels: map[string]string{"x": fmt.Sprint(w.r.IntN(2))}}
	for _, w.six = range []bool{false, true} {
		var host netip.Prefix
		var tunnel netip.Addr
		var mac cluster.MAC
		if w.r.IntN(8) > 0 {
			a := w.addr(8+w.r.IntN(2), w.r.IntN(5))
			if w.r.IntN(15) == 0 {
				a = w.addr(0, w.r.IntN(8)) // inside a pool: never to be routed to
			}
			host = netip.PrefixFrom(a, a.BitLen()-8)
		}
		if w.r.IntN(8) > 0 {
			tunnel = w.addr(w.r.IntN(2), w.r.IntN(10))
		}
		if w.r.IntN(4) == 0 {
			mac = cluster.MAC{2, 0, 0, 0, 0, byte(w.r.IntN(3))}
		}
		if w.six {
			n.Addr6, n.VXLANAddr6, n.VXLANMAC6 = host, tunnel, mac
		} else {
			n.Addr4, n.VXLANAddr4, n.VXLANMAC4 = host, tunnel, mac
		}
	}
	w.six = six
	w.b.SetNode(n)
}

func (w *world) setBlock() {
	b := &cluster.Block{CIDR: w.aBlock(), Node: w.node()}
	switch w.r.IntN(10) {
	case 0:
		b.Node = ""
	case 1:
		b.Node, b.Virtual = "", "load-balancer"
	}
	a := b.CIDR.Addr()
	for range w.r.IntN(4) {
		for range w.r.IntN(3) {
			a = a.Next()
		}
		if node := w.node(); b.CIDR.Contains(a) && node != b.Node {
			b.Borrowed = append(b.Borrowed, cluster.Assignment{Addr: a, Node: node})
		}
		a = a.Next()
	}
	w.b.SetBlock(b)
}

func (w *world) setPool() {
	net := w.r.IntN(3)
	p := &cluster.Pool{Name: fmt.Sprintf("p%d-%v", net, w.six), CIDR: w.prefix(net, 0, 8)}
	switch w.r.IntN(6) {
	case 0:
		w.b.DeletePool(p.Name)
		return
	case 1: // neither
	case 2:
		p.IPIPMode = cluster.Always
	default:
		p.VXLANMode = cluster.Mode(1 + w.r.IntN(2))
	}
	w.b.SetPool(p)
}

func (w *world) setHost() {
	eth := routes.Interface{Name: "eth0", Index: 2, MTU: 1500 + w.r.IntN(2), Up: true}
	other := routes.Interface{Name: "eth1", Index: 3, MTU: 9000, Up: true}
	for _, w.six = range []bool{false, true} {
		for net := 8; net < 10; net++ {
			for last := range 5 {
				a := w.addr(net, last)
				switch w.r.IntN(8) {
				case 0:
				case 1:
					other.Addrs = append(other.Addrs, netip.PrefixFrom(a, a.BitLen()-8))
				default:
					eth.Addrs = append(eth.Addrs, netip.PrefixFrom(a, a.BitLen()-8))
				}
			}
		}
	}
	w.host = routes.NewHost([]routes.Interface{eth, other}, nil, nil)
}

// programmed is what a programmer would have after some changes.
type programmed struct {
	routes     map[routes.Key]string
	neighbours map[routes.Neighbour]string
	links      []string
}

func (g *programmed) apply(t *testing.T, c *routes.Change) {
	t.Helper()
	if c.Whole {
		g.routes, g.neighbours = map[routes.Key]string{}, map[routes.Neighbour]string{}
	}
	for _, k := range c.Withdraw {
		if _, ok := g.routes[k]; !ok {
			t.Fatalf("%v is withdrawn and was not there", k)
		}
		delete(g.routes, k)
	}
	for _, n := range c.WithdrawNeighbours {
		if g.neighbours[neighbourKey(n)] != neighbourText(n) {
			t.Fatalf("%s is withdrawn and was not there", neighbourText(n))
		}
		delete(g.neighbours, neighbourKey(n))
	}
	told := map[routes.Key]string{}
	for i := range c.Routes {
		r := &c.Routes[i]
		line := fmt.Sprintf("%s %+v", routeText(r), *r.Reason)
		if g.routes[r.Key()] == line && !r.Dst.IsSingleIP() { // an address may pass from one block to another
			t.Fatalf("%s is told again", line)
		}
		if old, twice := told[r.Key()]; twice {
			t.Fatalf("one change says %s and %s", old, line)
		}
		if slices.Contains(c.Withdraw, r.Key()) {
			t.Fatalf("%v is both wanted and withdrawn", r.Key())
		}
		told[r.Key()] = line
		g.routes[r.Key()] = line
	}
	for _, n := range c.Neighbours {
		g.neighbours[neighbourKey(n)] = neighbourText(n)
	}
	if c.Links != nil {
		g.links = nil
		for i := range c.Links {
			g.links = append(g.links, linkText(&c.Links[i])+fmt.Sprint(c.Links[i].MAC))
		}
	}
}

// TestIncrementalEqualsWhole follows random histories with one Planner and compares it at every step with one that has just
// been made.
func TestIncrementalEqualsWhole(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		w := &world{r: r, b: cluster.NewBuilder(), backend: cluster.BackendVXLAN}
		w.setHost()
		w.six = false
		for net := range 3 {
			w.b.SetPool(&cluster.Pool{Name: fmt.Sprintf("p%d-false", net), CIDR: w.prefix(net, 0, 8).Masked(), VXLANMode: cluster.CrossSubnet})
		}
		for range 30 {
			w.step()
		}
		p := NewPlanner("n2")
		var is programmed
		var pending *cluster.State
		for range 100 {
			for range 1 + r.IntN(3) {
				w.step()
			}
			if pending = w.b.State(); r.IntN(4) == 0 {
				continue // coalesced: the Planner never sees this State
			}
			in := Input{State: pending, Host: w.host, Backend: w.backend}
			out := p.Plan(in)
			is.apply(t, &out.Change)
			whole := NewPlanner("n2").Plan(in)
			var want programmed
			want.apply(t, &whole.Change)
			if d := cmp.Diff(want, is, cmp.AllowUnexported(programmed{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Fatalf("seed %d: whole (-) and incremental (+) differ:\n%s", seed, d)
			}
			if !slices.Equal(out.VTEPs, whole.VTEPs) || !slices.Equal(out.Problems, whole.Problems) {
				t.Fatalf("seed %d: lists differ:\n%+v\n%+v\n%+v\n%+v", seed, out.VTEPs, whole.VTEPs, out.Problems, whole.Problems)
			}
			w.sane(t, in, &whole)
			if w.backend != cluster.BackendNone {
				explained(t, in.State, &whole.Change)
			}
			for i := range whole.Change.Routes {
				seen[kindOf(&whole.Change.Routes[i])]++
			}
			for _, v := range out.VTEPs {
				seen[string(v.Condition)]++
			}
		}
	}
	for _, k := range []string{"blackhole", "tunnel", "direct", "link", "unroutable", "conflict", "waiting", "incomplete", "in-use"} {
		if seen[k] < 100 {
			t.Errorf("only %d times %s: the histories are too tame", seen[k], k)
		}
	}
}

func kindOf(r *routes.Route) string {
	switch {
	case r.Unroutable != "":
		return "unroutable"
	case r.Type == routes.Blackhole:
		return "blackhole"
	case !r.NextHops[0].Gateway.IsValid():
		return "link"
	case r.NextHops[0].Device == routes.DeviceVXLAN || r.NextHops[0].Device == routes.DeviceVXLAN6:
		return "tunnel"
	}
	return "direct"
}

// sane holds what must be true of every plan, whatever led to it.
func (w *world) sane(t *testing.T, in Input, out *Output) {
	t.Helper()
	devices := map[string]bool{}
	for i := range out.Change.Links {
		devices[out.Change.Links[i].Name] = true
	}
	reach := map[netip.Addr]bool{}
	for _, n := range out.Change.Neighbours {
		reach[n.Addr] = true
		if !devices[n.Device] {
			t.Fatalf("%s without the device", neighbourText(n))
		}
	}
	self := in.State.Node("n2")
	listed := map[netip.Prefix]bool{}
	for i := range out.Change.Routes {
		r := &out.Change.Routes[i]
		listed[r.Dst] = true
		if r.Dst.IsSingleIP() && in.State.NodeByAddr(r.Dst.Addr()) != nil {
			t.Fatalf("%s is a node's own address", routeText(r))
		}
		switch kindOf(r) {
		case "blackhole":
			if b := in.State.Block(r.Dst); b == nil || b.Node != "n2" || r.Dst.IsSingleIP() {
				t.Fatalf("%s is not an own block", routeText(r))
			}
		case "tunnel", "link":
			gw := r.NextHops[0].Gateway
			if !gw.IsValid() {
				gw = r.Dst.Addr()
			}
			if !devices[r.NextHops[0].Device] || !reach[gw] {
				t.Fatalf("%s leads to no VTEP", routeText(r))
			}
		case "direct":
			gw := r.NextHops[0].Gateway
			if !self.SameSubnet(gw) || in.Host.ByAddr(self.Addr(cluster.FamilyOf(gw)).Addr()).Name != r.NextHops[0].Device || self.Addr(cluster.FamilyOf(gw)).Addr() == gw {
				t.Fatalf("%s leads nowhere", routeText(r))
			}
		}
	}
	for _, b := range in.State.Blocks() { // no remote block of ours goes missing
		pool := in.State.PoolFor(b.CIDR)
		if in.Backend == cluster.BackendNone || b.Node == "" || b.Node == "n2" || b.CIDR.IsSingleIP() {
			continue
		}
		if in.Backend == cluster.BackendBird && pool != nil && pool.VXLANMode == cluster.Never {
			if listed[b.CIDR] {
				t.Fatalf("%v is BGP's", b.CIDR)
			}
			continue
		}
		if !listed[b.CIDR] {
			t.Fatalf("remote block %v is neither routed nor listed", b.CIDR)
		}
	}
}
