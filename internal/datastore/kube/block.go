package kube

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/calico"
)

// readBlock reads of a block what is routed on, in one pass over its text. False where anything is not as Calico writes it: then
// the slow way reads it, and says what is wrong. In the classic form the metadata in the annotation does not matter to
// a block's word.
func readBlock(text []byte) (*item, bool) {
	b, i := &calico.IPAMBlock{}, &item{}
	s := scanner{text: text}
	err := s.object(func(key string) {
		switch key {
		case "metadata":
			s.nested(func(key string) { readMeta(&s, key, i) })
		case "spec":
			s.nested(func(key string) { readBlockSpec(&s, key, &b.Spec) })
		default:
			s.skip()
		}
	})
	if err != nil || i.Name == "" || b.Spec.CIDR == "" {
		return nil, false
	}
	b.Name = i.Name
	r := calico.Resource{Kind: calico.KindIPAMBlock, Name: i.Name, Object: b}
	i.word, i.problems = r.Word()
	return i, len(i.problems) == 0
}

func readMeta(s *scanner, key string, i *item) {
	switch key {
	case "name":
		i.Name = strings.Clone(s.str())
	case "uid":
		i.UID = types.UID(strings.Clone(s.str()))
	case "resourceVersion":
		i.ResourceVersion = strings.Clone(s.str())
	default:
		s.skip()
	}
}

func readBlockSpec(s *scanner, key string, spec *calico.IPAMBlockSpec) {
	switch key {
	case "cidr":
		spec.CIDR = strings.Clone(s.str())
	case "affinity":
		if s.null() {
			return
		}
		owner := strings.Clone(s.str())
		spec.Affinity = &owner
	case "deleted":
		spec.Deleted = s.boolean()
	case "allocations":
		readAllocations(s, spec)
	case "attributes":
		readAttributes(s, spec)
	default:
		s.skip()
	}
}

func readAllocations(s *scanner, spec *calico.IPAMBlockSpec) {
	const usual = 64 // addresses of a /26
	values := make([]int, 0, usual)
	spec.Allocations = make([]*int, 0, usual)
	s.array(func() {
		if s.null() {
			spec.Allocations = append(spec.Allocations, nil)
			return
		}
		values = append(values, s.number()) // an array that grew leaves the pointers to the old one valid
		spec.Allocations = append(spec.Allocations, &values[len(values)-1])
	})
}

// readAttributes keeps of each only the node. Most have the same one: they share a map.
func readAttributes(s *scanner, spec *calico.IPAMBlockSpec) {
	var shared map[string]string
	s.array(func() {
		var a calico.AllocationAttrs
		s.nested(func(key string) {
			switch {
			case key == "releasedAt" && !s.null():
				t, err := time.Parse(time.RFC3339, s.str())
				s.fail(err != nil)
				a.ReleasedAt = &t
			case key == "secondary" && !s.null():
				s.nested(func(key string) {
					if key != calico.AttrNode {
						s.skip()
						return
					}
					node := s.str()
					if shared[calico.AttrNode] != node {
						shared = map[string]string{calico.AttrNode: strings.Clone(node)}
					}
					a.Secondary = shared
				})
			case key != "releasedAt" && key != "secondary":
				s.skip()
			}
		})
		spec.Attributes = append(spec.Attributes, a)
	})
}
