package kube

import (
	"context"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// demand watches kinds of objects only while what is known of the cluster asks for them. It belongs to the goroutine of Watch.
type demand interface {
	// follow starts to read what is wanted now and forgets the rest.
	follow(in *datastore.Intake)
}

// starter starts to follow a kind; only is a field selector, or empty.
type starter func(ctx context.Context, kind calico.Kind, only string) *shelf

// services follows Services and EndpointSlices of all namespaces while BGPConfiguration has addresses of Services announced. At a start the
// State is not in sync without them: peers would take back what a former process had announced.
type services struct {
	ctx   context.Context // of Watch
	start starter
	stop  context.CancelFunc // nil: they are not followed
	parts []*shelf
}

func newServices(ctx context.Context, start starter) *services {
	return &services{ctx: ctx, start: start}
}

func (s *services) follow(in *datastore.Intake) {
	conf := in.State().BGP()
	wanted := conf.AnnouncesServices()
	switch {
	case wanted && s.stop == nil:
		ctx, stop := context.WithCancel(s.ctx)
		s.stop = stop
		for _, kind := range []calico.Kind{calico.KindService, calico.KindEndpointSlice} {
			part := s.start(ctx, kind, "")
			part.needed = true
			s.parts = append(s.parts, part)
		}
	case !wanted && s.stop != nil:
		s.stop()
		for _, part := range s.parts {
			part.drop(in)
		}
		s.stop, s.parts = nil, nil
	}
}

// drop forgets a kind that is no longer followed.
func (s *shelf) drop(in *datastore.Intake) {
	s.dropped = true
	for name := range s.marks {
		in.Delete(datastore.Key{Kind: s.kind, Name: name})
	}
	s.marks, s.doubt = nil, doubt{}
}
