package kube

import (
	"strings"

	"github.com/caracal-net/caracal/internal/calico"
)

// readAffinity reads a claim in one pass over its text, as readBlock reads a block: there are as many of them.
func readAffinity(text []byte) (*item, bool) {
	a, i := &calico.BlockAffinity{}, &item{}
	s := scanner{text: text}
	err := s.object(func(key string) {
		switch key {
		case "metadata":
			s.nested(func(key string) { readMeta(&s, key, i) })
		case "spec":
			s.nested(func(key string) { readAffinitySpec(&s, key, &a.Spec) })
		default:
			s.skip()
		}
	})
	if err != nil || i.Name == "" {
		return nil, false
	}
	a.Name = i.Name
	r := calico.Resource{Kind: calico.KindBlockAffinity, Name: i.Name, Object: a}
	i.word, i.problems = r.Word()
	return i, len(i.problems) == 0
}

func readAffinitySpec(s *scanner, key string, spec *calico.BlockAffinitySpec) {
	switch key {
	case "cidr":
		spec.CIDR = strings.Clone(s.str())
	case "node":
		spec.Node = strings.Clone(s.str())
	case "state":
		spec.State = strings.Clone(s.str())
	case "type":
		spec.Type = strings.Clone(s.str())
	case "deleted": // text in the classic form
		if s.peek() != '"' {
			spec.Deleted = calico.StringBool(s.boolean())
			return
		}
		said := s.str()
		s.fail(said != "true" && said != "false")
		spec.Deleted = said == "true"
	default:
		s.skip()
	}
}
