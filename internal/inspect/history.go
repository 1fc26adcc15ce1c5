package inspect

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// History implements caracal.v1.Inspection.
func (s *Server) History(_ context.Context, r *caracalv1.HistoryRequest) (*caracalv1.HistoryResponse, error) {
	if s.src.History == nil {
		return nil, status.Error(codes.Unimplemented, "no history is kept here")
	}
	m := &caracalv1.HistoryResponse{Device: r.GetDevice()}
	var events []routes.HistoryEvent
	switch {
	case r.GetDevice() != "" && r.GetPrefix() != "":
		return nil, status.Error(codes.InvalidArgument, "prefix and device: name one of them")
	case r.GetDevice() != "" && s.src.HistoryOf == nil:
		return nil, status.Error(codes.Unimplemented, "no history of devices is kept here")
	case r.GetDevice() != "":
		events = s.src.HistoryOf(r.GetDevice())
	default:
		dst, err := parseDestination(r.GetPrefix())
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		m.Prefix, events = dst.String(), s.src.History(dst)
	}
	for _, e := range events {
		ev := &caracalv1.HistoryEvent{Time: timestamppb.New(e.At), Owner: string(e.Owner), Metric: e.Metric, What: e.What, Detail: e.Detail,
			KernelRoute: e.Kernel, Object: e.Object, Cause: e.Cause, CauseId: e.CauseID}
		if e.Cause != "" {
			ev.CauseTime = timestamppb.New(e.CauseAt)
		}
		m.Events = append(m.Events, ev)
	}
	return m, nil
}

// parseDestination reads a prefix, or an address as its host route.
func parseDestination(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("prefix %q: write one as in 10.1.2.0/26, or an address", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("prefix %q: bits are set behind the prefix length; write %s", s, p.Masked())
	}
	return p, nil
}

// History writes a line an event, with the time to the microsecond: what matters is what came first and how much later the next.
func (r Renderer) History(w io.Writer, m *caracalv1.HistoryResponse) error {
	t := table{}
	t.add("TIME", "OWNER", "WHAT", "OBJECT", "CAUSE")
	for _, e := range m.GetEvents() {
		what := e.GetWhat()
		if e.GetDetail() != "" {
			what += ": " + e.GetDetail()
		}
		cause := e.GetCause()
		if cause != "" {
			cause = fmt.Sprintf("#%d %s", e.GetCauseId(), cause)
			if d := e.GetTime().AsTime().Sub(e.GetCauseTime().AsTime()); d > 0 {
				cause += fmt.Sprintf(" (%v before)", d.Round(time.Microsecond))
			}
		}
		t.add(e.GetTime().AsTime().UTC().Format("2006-01-02T15:04:05.000000Z"), e.GetOwner(), what, cmp.Or(e.GetObject(), e.GetKernelRoute()), cause)
	}
	return t.write(w)
}
