package kube

import (
	"context"
	"fmt"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// demand watches kinds of objects only while what is known of the cluster asks for them. It belongs to the goroutine of Watch.
type demand interface {
	// follow starts to read what is wanted now and forgets the rest. It returns what is wrong with it.
	follow(in *datastore.Intake) []cluster.Problem
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

func (s *services) follow(in *datastore.Intake) []cluster.Problem {
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
	return nil
}

// pods follows this node's own Pods while a BGPPeer has workloads for peers. Our role need not allow it: that they cannot be read costs these sessions
// and nothing else.
type pods struct {
	ctx   context.Context // of Watch
	start starter
	node  string
	stop  context.CancelFunc // nil: they are not followed
	shelf *shelf
}

func (p *pods) follow(in *datastore.Intake) []cluster.Problem {
	wanted := in.State().PeersWithWorkloads()
	switch {
	case wanted && p.stop == nil:
		ctx, stop := context.WithCancel(p.ctx)
		p.stop, p.shelf = stop, p.start(ctx, calico.KindPod, "spec.nodeName="+p.node)
		p.shelf.tried = true
	case !wanted && p.stop != nil:
		p.stop()
		p.shelf.drop(in)
		p.stop, p.shelf = nil, nil
	}
	if p.shelf == nil || p.shelf.err == nil {
		return nil
	}
	return []cluster.Problem{{Object: "Pods of " + p.node, Field: "BGPPeer spec.localWorkloadSelector",
		Text: fmt.Sprintf("cannot be read, so there are no sessions with workloads: %v; allow caracald's service account to list and watch pods", p.shelf.err)}}
}

// drop forgets a kind that is no longer followed.
func (s *shelf) drop(in *datastore.Intake) {
	s.dropped = true
	for name := range s.marks {
		in.Delete(datastore.Key{Kind: s.kind, Name: name})
	}
	s.marks, s.doubt = nil, doubt{}
}
