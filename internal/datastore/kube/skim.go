package kube

import (
	"hash/maphash"
	"math"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/caracal-net/caracal/internal/calico"
)

// blockSkimmer reads the events of blocks as far as tells whether they matter, and keeps nothing but room for the next one.
type blockSkimmer struct {
	sum         maphash.Hash
	uid         string
	cidr, owner string
	deleted     bool
	allocations []int
	users       []user
}

// user is who an entry of a block's attributes says uses an address.
type user struct {
	node     string
	released bool
}

// free is an entry of allocations that is null.
const free = math.MinInt

// skim reads a line of a watch. Where anything is not as Calico writes it the sum is 0, and the line must be read as a whole.
func (b *blockSkimmer) skim(line []byte) (e arrival) {
	*b = blockSkimmer{sum: b.sum, allocations: b.allocations[:0], users: b.users[:0]}
	s := scanner{text: line}
	err := s.object(func(key string) {
		switch key {
		case "type":
			e.typ = watch.EventType(s.str())
		case "object":
			s.nested(func(key string) {
				switch key {
				case "metadata":
					s.nested(func(key string) { b.meta(&s, key, &e) })
				case "spec":
					s.nested(func(key string) { b.spec(&s, key) })
				default:
					s.skip()
				}
			})
		default:
			s.skip()
		}
	})
	if err == nil && e.name != "" && b.cidr != "" {
		e.sum = b.total()
	}
	return e
}

func (b *blockSkimmer) meta(s *scanner, key string, e *arrival) {
	switch key {
	case "name":
		e.name = s.str()
	case "uid":
		b.uid = s.str()
	case "resourceVersion":
		e.version = s.str()
	default:
		s.skip()
	}
}

func (b *blockSkimmer) spec(s *scanner, key string) {
	switch key {
	case "cidr":
		b.cidr = s.str()
	case "affinity":
		if b.owner = ""; !s.null() {
			b.owner = s.str()
		}
	case "deleted":
		b.deleted = s.boolean()
	case "allocations":
		b.allocations = b.allocations[:0]
		s.array(func() {
			if s.null() {
				b.allocations = append(b.allocations, free)
			} else {
				b.allocations = append(b.allocations, s.number())
			}
		})
	case "attributes":
		b.users = b.users[:0]
		s.array(func() { b.users = append(b.users, readUser(s)) })
	default:
		s.skip()
	}
}

func readUser(s *scanner) (u user) {
	s.nested(func(key string) {
		switch {
		case key == "releasedAt" && !s.null():
			_, err := time.Parse(time.RFC3339, s.str())
			s.fail(err != nil)
			u.released = true
		case key == "secondary" && !s.null():
			s.nested(func(key string) {
				if key == calico.AttrNode {
					u.node = s.str()
				} else {
					s.skip()
				}
			})
		case key != "releasedAt" && key != "secondary":
			s.skip()
		}
	})
	return u
}

// total hashes what a block's word is made of: addresses that its owner uses are no part of it.
func (b *blockSkimmer) total() uint64 {
	h := &b.sum
	h.Reset()
	hashText(h, b.uid)
	hashText(h, b.cidr)
	hashText(h, b.owner)
	maphash.WriteComparable(h, b.deleted)
	owner, host := strings.CutPrefix(b.owner, calico.AffinityHost)
	if b.deleted || !host && strings.HasPrefix(b.owner, calico.AffinityVirtual) {
		return h.Sum64() // single addresses are not routed
	}
	maphash.WriteComparable(h, len(b.allocations))
	for i, at := range b.allocations {
		if at == free {
			continue
		}
		if at < 0 || at >= len(b.users) {
			return 0
		}
		if u := b.users[at]; !u.released && u.node != "" && u.node != owner {
			maphash.WriteComparable(h, i)
			hashText(h, u.node)
		}
	}
	return h.Sum64()
}

// hashText adds a text and its length, so that what follows it is not taken for a part of it.
func hashText(h *maphash.Hash, text string) {
	maphash.WriteComparable(h, len(text))
	_, _ = h.WriteString(text)
}
