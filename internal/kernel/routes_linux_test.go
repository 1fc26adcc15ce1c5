package kernel

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestSegments: the segments follow one another without gap, each visits every operation once, and only deletes of IPv4 change places.
func TestSegments(t *testing.T) {
	v4, v6 := &Route{Dst: netip.MustParsePrefix("10.0.0.0/26")}, &Route{Dst: netip.MustParsePrefix("fd00::/64")}
	rnd := rand.New(rand.NewPCG(11, 12))
	scattered := 0
	for range 300 {
		var ops []RouteOp
		for range rnd.IntN(6) {
			op := []RouteOp{{Delete, v4}, {Delete, v4}, {Add, v4}, {Delete, v6}, {Replace, v4}}[rnd.IntN(5)]
			for range []int{1, scatterFrom - 1, scatterFrom, scatterFrom + 1, rnd.IntN(3000)}[rnd.IntN(5)] {
				ops = append(ops, op)
			}
		}
		for first := 0; first < len(ops); {
			n, stride := segment(ops[first:])
			if n <= 0 || first+n > len(ops) {
				t.Fatalf("segment of %d from %d of %d", n, first, len(ops))
			}
			seen := make([]bool, n)
			for i := range n {
				j := i * stride % n
				if seen[j] {
					t.Fatalf("%d steps of %d visit %d twice", n, stride, j)
				}
				seen[j] = true
				if op := ops[first+j]; stride != 1 && (op.Verb != Delete || op.Route != v4) {
					t.Fatalf("%s is moved", op)
				}
			}
			if first += n; stride != 1 {
				scattered++
			} else if n >= scatterFrom && ops[first-1] == (RouteOp{Delete, v4}) && ops[first-scatterFrom] == (RouteOp{Delete, v4}) {
				run := 0
				for i := first - 1; i >= 0 && ops[i] == (RouteOp{Delete, v4}); i-- {
					run++
				}
				if run >= scatterFrom {
					t.Fatalf("a run of %d deletes is sent in order", run)
				}
			}
		}
	}
	if scattered == 0 {
		t.Error("nothing was scattered, so nothing was tested")
	}
}
