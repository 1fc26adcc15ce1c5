package inspect

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// DefaultDrainWait is how long a node that is drained is the last choice before it withdraws: peers have then long had a better path, if there
// is one.
const DefaultDrainWait = 30 * time.Second

// maxDrainWait is longer than any maintenance takes to begin.
const maxDrainWait = 24 * time.Hour

// Drain implements caracal.v1.Control.
func (s *Server) Drain(ctx context.Context, r *caracalv1.DrainRequest) (*caracalv1.DrainResponse, error) {
	if s.src.Drain == nil {
		return nil, status.Error(codes.Unimplemented, "this node cannot be drained")
	}
	wait := DefaultDrainWait
	if r.GetWait() != nil {
		wait = r.GetWait().AsDuration()
	}
	if wait < 0 || wait > maxDrainWait {
		return nil, status.Errorf(codes.InvalidArgument, "wait %v: want a duration from 0s to %v", wait, maxDrainWait)
	}
	if err := s.src.Drain(ctx, wait, r.GetEverything()); err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Errorf(codes.Internal, "drain: %v", err)
	}
	return &caracalv1.DrainResponse{Leaving: leavingOf(s.src.Status().Leaving)}, nil
}

// Undrain implements caracal.v1.Control.
func (s *Server) Undrain(context.Context, *caracalv1.UndrainRequest) (*caracalv1.UndrainResponse, error) {
	if s.src.Undrain == nil {
		return nil, status.Error(codes.Unimplemented, "this node cannot be drained")
	}
	if err := s.src.Undrain(); err != nil {
		return nil, status.Errorf(codes.Internal, "undrain: %v", err)
	}
	return &caracalv1.UndrainResponse{}, nil
}

// leavingOf makes the message; the numbers on the wire are one higher, for 0 is none.
func leavingOf(l Leaving) *caracalv1.Leaving {
	return &caracalv1.Leaving{Step: caracalv1.Leaving_Step(l.Step) + 1, Since: timeOf(l.Since), Why: l.Why}
}

// leavingText is "shutting down since 5m: the Node is cordoned".
func (r Renderer) leavingText(m *caracalv1.Leaving) string {
	text := strings.ToLower(strings.TrimPrefix(m.GetStep().String(), "STEP_"))
	if m.GetSince() != nil {
		text += " since " + r.when(m.GetSince())
	}
	if m.GetWhy() != "" {
		text += ": " + m.GetWhy()
	}
	return text
}

// Drain writes how far the node has left.
func (r Renderer) Drain(w io.Writer, m *caracalv1.DrainResponse) error {
	_, err := fmt.Fprintln(w, r.leavingText(m.GetLeaving()))
	return err
}
