package inspect

import (
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// benchRoutes is the figure of the issue.
const benchRoutes = 100_000

// manyRoutes is a big cluster: blocks of one tunnel each, a reason and next hops shared by a node's.
func manyRoutes() []routes.Status {
	list := make([]routes.Status, 0, benchRoutes)
	var why *routes.Reason
	var hops []routes.NextHop
	for i := range benchRoutes {
		if i%4 == 0 {
			node := fmt.Sprintf("node-%d", i/4)
			why = &routes.Reason{Rule: "Always: tunnel", Source: "IPAMBlock 10-10-2-0-26", Pool: "default-ipv4-ippool", Node: node}
			hops = []routes.NextHop{{Gateway: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Device: "vxlan.calico", Onlink: true}}
		}
		j := i * 48271 % benchRoutes // out of order, as a map gives them out
		s := routes.Status{Owner: routes.OwnerVXLAN, Outcome: routes.Installed, Since: epoch, Route: routes.Route{
			Dst:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(j >> 10), byte(j >> 2), byte(j << 6)}), 26),
			Type: kernel.Unicast, MTU: 1450, NextHops: hops, Reason: why}}
		s.Kernel = s.Route.Dst.String() + " via 10.10.2.1 dev vxlan.calico proto 202 metric 1024 onlink mtu 1450"
		list = append(list, s)
	}
	return list
}

func BenchmarkListRoutes(b *testing.B) {
	w := testWorld()
	w.statuses = manyRoutes()
	conn, _ := serve(b, w)
	client := caracalv1.NewInspectionClient(conn)
	for b.Loop() {
		stream, err := client.ListRoutes(b.Context(), &caracalv1.ListRoutesRequest{})
		n, messages := 0, 0
		for err == nil {
			var m *caracalv1.ListRoutesResponse
			if m, err = stream.Recv(); err == nil {
				n += len(m.Routes)
				messages++
			}
		}
		if err != io.EOF || n != benchRoutes {
			b.Fatalf("%d routes, %v", n, err)
		}
		b.ReportMetric(float64(messages), "messages/op")
	}
	b.ReportMetric(float64(benchRoutes*b.N)/b.Elapsed().Seconds(), "routes/s")
}

func BenchmarkWatchRoutes(b *testing.B) {
	w := testWorld()
	w.statuses = manyRoutes()
	conn, _ := serve(b, w)
	for b.Loop() {
		r := watchRoutes(b, conn, nil)
		r.until(func() bool { return r.synced })
		if len(r.have) != benchRoutes {
			b.Fatalf("%d routes", len(r.have))
		}
	}
	b.ReportMetric(float64(benchRoutes*b.N)/b.Elapsed().Seconds(), "routes/s")
}

// BenchmarkWatchChange is what one changed route costs the programmer with one reader that keeps up and one that is asleep.
func BenchmarkWatchChange(b *testing.B) {
	awake, asleep := newChanges(&filter{}, watchPending), newChanges(&filter{}, watchPending)
	list := manyRoutes()
	asleep.put(list)
	i := 0
	for b.Loop() {
		s := list[i%len(list) : i%len(list)+1]
		awake.put(s)
		asleep.put(s)
		if i++; i%1024 == 0 {
			awake.take()
		}
	}
}

func BenchmarkExplain(b *testing.B) {
	w := testWorld()
	w.statuses = manyRoutes()
	src := w.sources()
	for b.Loop() {
		explain(b.Context(), &src, addr("10.10.2.7"))
	}
}

func BenchmarkRenderRoutes(b *testing.B) {
	list := manyRoutes()
	var messages []*caracalv1.Route
	for i := range list {
		messages = append(messages, routeOf(&list[i]))
	}
	for b.Loop() {
		if err := (Renderer{Now: epoch}).Routes(io.Discard, messages); err != nil {
			b.Fatal(err)
		}
	}
}
