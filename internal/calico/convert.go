package calico

import (
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Word converts the resource and returns all that is wrong with it, each with its line. A value of the wrong type is
// told once, not again as a value that is missing.
func (r *Resource) Word() (any, []cluster.Problem) {
	w, more := Word(r.Object)
	problems := r.Problems
	for _, p := range more {
		if !r.told(p.Field) {
			p.Line = LineOf(r.Node, p.Field)
			problems = append(problems, p)
		}
	}
	if len(r.Problems) > 0 && !Partial(r.Kind) {
		return nil, problems
	}
	return w, problems
}

// told reports whether the field, or one around it, has the wrong type.
func (r *Resource) told(field string) bool {
	for _, p := range r.Problems {
		if rest, ok := strings.CutPrefix(field, p.Field); ok && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return false
}

// Partial reports whether objects of a kind can be used without the values that are wrong. That holds for a node and for
// settings, where every value stands alone. A block is usable as a whole or not at all; what holds for a pool its conversion says.
func Partial(kind Kind) bool {
	return kind == KindNode || kind == KindBGPConfiguration || kind == KindFelixConfig
}

// Word converts an object to the word package cluster has for it: *cluster.Node, *cluster.Pool, *cluster.Block,
// *cluster.Affinity, *cluster.BGPPeer, *cluster.BGPFilter, *cluster.Secret, *cluster.Service, *cluster.EndpointSlice,
// *cluster.Pod, *cluster.BGPConfig, *cluster.FelixConfig or cluster.Backend. It is nil for what is not routed on: IPAM handles and settings, Services
// without an address, Pods of a host's network, what is soft-deleted, and what cannot be used because of the problems.
func Word(o Object) (any, []cluster.Problem) {
	switch o := o.(type) {
	case *Node:
		return word(o.ClusterNode())
	case *IPPool:
		return word(o.Pool())
	case *IPAMBlock:
		return word(o.Block())
	case *BlockAffinity:
		return word(o.Affinity())
	case *BGPPeer:
		return word(o.Peer())
	case *BGPConfiguration:
		return word(o.Config())
	case *FelixConfiguration:
		return word(o.Config())
	case *BGPFilter:
		return word(o.Filter())
	case *Secret:
		return word(o.Secret())
	case *Service:
		return word(o.Service())
	case *EndpointSlice:
		return word(o.Slice())
	case *Pod:
		return word(o.Pod())
	case *ConfigMap:
		b, problems := o.Backend()
		if len(problems) > 0 {
			return nil, problems
		}
		return b, nil
	}
	return nil, nil
}

// word drops the type of a nil pointer, so that a nil word is nil.
func word[T any](w *T, problems []cluster.Problem) (any, []cluster.Problem) {
	if w == nil {
		return nil, problems
	}
	return w, problems
}
