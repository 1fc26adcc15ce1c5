package vxlan

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

const benchNodes, benchBlocks = 5000, 20000

// bigCluster is 5,000 nodes with four blocks each, one node in sixteen in our subnet.
func bigCluster() (*cluster.Builder, *routes.Host) {
	b := cluster.NewBuilder()
	b.SetPool(&cluster.Pool{Name: "default", CIDR: netip.MustParsePrefix("10.0.0.0/8"), VXLANMode: cluster.CrossSubnet})
	for i := range benchNodes {
		b.SetNode(&cluster.Node{Name: benchName(i), Addr4: benchAddr(i), VXLANAddr4: benchCIDR(4 * i).Addr()})
	}
	for i := range benchBlocks {
		b.SetBlock(&cluster.Block{CIDR: benchCIDR(i), Node: benchName(i / 4)})
	}
	host := routes.NewHost([]routes.Interface{{Name: "eth0", Index: 2, MTU: 1500, Up: true, Addrs: []netip.Prefix{benchAddr(0)}}}, nil, nil)
	return b, host
}

func benchName(i int) string { return fmt.Sprintf("node-%04d", i) }

func benchAddr(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 24)
}

func benchCIDR(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

func BenchmarkFullPlan(b *testing.B) {
	k, host := bigCluster()
	in := Input{State: k.State(), Host: host, Backend: cluster.BackendVXLAN}
	b.ReportAllocs()
	for b.Loop() {
		out := NewPlanner(benchName(0)).Plan(in)
		if len(out.Change.Routes) != benchBlocks || len(out.Change.Neighbours) != 2*(benchNodes-1) {
			b.Fatalf("%d routes, %d neighbours", len(out.Change.Routes), len(out.Change.Neighbours))
		}
	}
}

// step measures the plan that follows a change of the State. The States are made beforehand, in a ring; only at its end does
// Diff have to walk.
func step(b *testing.B, change func(k *cluster.Builder, i int), routesWanted int) {
	k, host := bigCluster()
	p := NewPlanner(benchName(0))
	in := Input{State: k.State(), Host: host, Backend: cluster.BackendVXLAN}
	p.Plan(in)
	var ring [64]*cluster.State
	for i := range ring {
		change(k, i+1)
		ring[i] = k.State()
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		in.State = ring[i%len(ring)]
		i++
		if out := p.Plan(in); len(out.Change.Routes) != routesWanted || out.Change.Whole {
			b.Fatalf("%d routes", len(out.Change.Routes))
		}
	}
}

func BenchmarkOneBlockChange(b *testing.B) {
	step(b, func(k *cluster.Builder, i int) {
		k.SetBlock(&cluster.Block{CIDR: benchCIDR(7777), Node: benchName(1 + i%4000)})
	}, 1)
}

// BenchmarkOneNodeChange gives one node another tunnel address: four blocks, one neighbour entry, one list of VTEPs.
func BenchmarkOneNodeChange(b *testing.B) {
	step(b, func(k *cluster.Builder, i int) {
		k.SetNode(&cluster.Node{Name: benchName(3000), Addr4: benchAddr(3000), VXLANAddr4: benchCIDR(4*3000 + i%4).Addr()})
	}, 4)
}

// BenchmarkModeChange turns the pool from Always to CrossSubnet and back: every block is judged, those in our subnet move.
func BenchmarkModeChange(b *testing.B) {
	step(b, func(k *cluster.Builder, i int) {
		mode := [2]cluster.Mode{cluster.CrossSubnet, cluster.Always}[i&1]
		k.SetPool(&cluster.Pool{Name: "default", CIDR: netip.MustParsePrefix("10.0.0.0/8"), VXLANMode: mode})
	}, benchBlocks-4)
}

func BenchmarkNoChange(b *testing.B) {
	k, host := bigCluster()
	p := NewPlanner(benchName(0))
	in := Input{State: k.State(), Host: host, Backend: cluster.BackendVXLAN}
	p.Plan(in)
	b.ReportAllocs()
	for b.Loop() {
		p.Plan(in)
	}
}
