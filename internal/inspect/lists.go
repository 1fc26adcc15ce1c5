package inspect

import (
	"cmp"
	"context"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// A batch ends with whichever comes first. gRPC clients refuse messages over 4 MiB by default, and a multipath route of
// hundreds of next hops is tens of kilobytes.
const (
	batchItems = 1000
	batchBytes = 256 << 10
)

// batches hands items to send in batches of bounded number and size. The slice is not used again.
func batches[M proto.Message](items iter.Seq[M], send func([]M) error) error {
	var batch []M
	size := 0
	for m := range items {
		batch = append(batch, m)
		size += proto.Size(m)
		if len(batch) < batchItems && size < batchBytes {
			continue
		}
		if err := send(batch); err != nil {
			return err
		}
		batch, size = make([]M, 0, len(batch)), 0
	}
	if len(batch) == 0 {
		return nil
	}
	return send(batch)
}

// sortedRoutes returns what the filter picks, in prefix order: family, address, length, metric, owner.
func (s *Server) sortedRoutes(f *filter) []*routes.Status {
	sorted := pointers(s.src.Routes(f.picks))
	slices.SortFunc(sorted, compareStatus)
	return sorted
}

// comparePrefix is prefix order: IPv4 before IPv6, then address, then length.
func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}

func compareStatus(a, b *routes.Status) int {
	if c := comparePrefix(a.Route.Dst, b.Route.Dst); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Route.Key().Metric, b.Route.Key().Metric); c != 0 {
		return c
	}
	return compareOwner(a.Owner, b.Owner)
}

// compareOwner orders owners as arbitration does; one that it does not know comes last.
func compareOwner(a, b routes.Owner) int {
	rank := func(o routes.Owner) int {
		if i := slices.Index(owners(), o); i >= 0 {
			return i
		}
		return len(owners())
	}
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	return strings.Compare(string(a), string(b))
}

// ListRoutes implements caracal.v1.Inspection.
func (s *Server) ListRoutes(r *caracalv1.ListRoutesRequest, stream grpc.ServerStreamingServer[caracalv1.ListRoutesResponse]) error {
	f, err := newFilter(r.GetFilter())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return batches(mapped(s.sortedRoutes(f), routeOf), func(b []*caracalv1.Route) error {
		return stream.Send(&caracalv1.ListRoutesResponse{Routes: b})
	})
}

// ListVTEPs implements caracal.v1.Inspection.
func (s *Server) ListVTEPs(_ *caracalv1.ListVTEPsRequest, stream grpc.ServerStreamingServer[caracalv1.ListVTEPsResponse]) error {
	sorted := pointers(slices.Clone(s.src.VTEPs()))
	slices.SortFunc(sorted, func(a, b *VTEP) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), cmp.Compare(a.Family, b.Family), a.Addr.Compare(b.Addr))
	})
	return batches(mapped(sorted, vtepOf), func(b []*caracalv1.VTEP) error {
		return stream.Send(&caracalv1.ListVTEPsResponse{Vteps: b})
	})
}

// GetStatus implements caracal.v1.Inspection.
func (s *Server) GetStatus(context.Context, *caracalv1.GetStatusRequest) (*caracalv1.GetStatusResponse, error) {
	info := s.src.Status()
	m := &caracalv1.GetStatusResponse{
		Node: s.src.Node, Backend: string(s.src.Backend()), Version: info.Version, Started: timeOf(info.Started),
		Readiness: &caracalv1.Readiness{Ready: info.Ready, WaitingFor: info.WaitingFor},
		Counts:    countsOf(s.src.Counts()),
	}
	if s.src.Settings != nil {
		for _, c := range s.src.Settings() {
			m.Settings = append(m.Settings, &caracalv1.Setting{Name: c.Name, Want: int32(c.Want), Have: int32(c.Have), State: stateOf(c.Outcome), Detail: c.Detail,
				Attempts: uint32(max(c.Attempts, 0)), Since: timeOf(c.Since)})
		}
	}
	if s.src.Latencies != nil {
		for _, b := range s.src.Latencies() {
			l := &caracalv1.LatencyBucket{Count: b.Count}
			if b.Upto > 0 {
				l.Upto = durationpb.New(b.Upto)
			}
			m.Latencies = append(m.Latencies, l)
		}
	}
	if info.Leaving.Step != bgp.Stays {
		m.Leaving = leavingOf(info.Leaving)
	}
	for _, src := range info.Sources {
		m.Sources = append(m.Sources, &caracalv1.Source{Name: src.Name, InSync: src.InSync, Since: timeOf(src.Since), Detail: src.Detail})
	}
	for _, d := range info.Devices {
		m.Devices = append(m.Devices, deviceOf(&d))
	}
	slices.SortStableFunc(m.Devices, func(a, b *caracalv1.Device) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range allProblems(info.Problems, s.src.State()) {
		m.Problems = append(m.Problems, problemOf(p))
	}
	return m, nil
}

// allProblems is the daemon's list with what only the State knows, sorted.
func allProblems(listed []cluster.Problem, st *cluster.State) []cluster.Problem {
	all := slices.Clone(listed)
	if st != nil {
		all = append(all, st.Problems()...)
	}
	slices.SortFunc(all, func(a, b cluster.Problem) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Field, b.Field),
			strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Text, b.Text))
	})
	return slices.Compact(all)
}

// countsOf lists the counts that are not zero by owner and state.
func countsOf(counts map[routes.Owner]map[routes.Outcome]int) []*caracalv1.RouteCount {
	var list []*caracalv1.RouteCount
	for owner, byOutcome := range counts {
		for outcome, n := range byOutcome {
			if n > 0 {
				list = append(list, &caracalv1.RouteCount{Owner: string(owner), State: stateOf(outcome), Routes: uint32(n)})
			}
		}
	}
	slices.SortFunc(list, func(a, b *caracalv1.RouteCount) int {
		return cmp.Or(compareOwner(routes.Owner(a.Owner), routes.Owner(b.Owner)), cmp.Compare(a.State, b.State))
	})
	return list
}

func pointers[T any](list []T) []*T {
	p := make([]*T, len(list))
	for i := range list {
		p[i] = &list[i]
	}
	return p
}

func mapped[T, M any](list []*T, f func(*T) M) iter.Seq[M] {
	return func(yield func(M) bool) {
		for _, v := range list {
			if !yield(f(v)) {
				return
			}
		}
	}
}
