package prefixmap

import (
	"encoding/binary"
	"iter"
	"net/netip"
)

// Map is a map by prefix; the zero Map is empty. Prefixes are keys as they are, masked or not, as in a map by netip.Prefix.
type Map[V any] struct {
	four map[uint64]V
	rest map[netip.Prefix]V
}

// word returns an IPv4 prefix as a number.
func word(p netip.Prefix) (uint64, bool) {
	if !p.IsValid() || !p.Addr().Is4() {
		return 0, false
	}
	a := p.Addr().As4()
	return uint64(binary.BigEndian.Uint32(a[:]))<<8 | uint64(p.Bits()), true
}

func prefix(w uint64) netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(w>>8))
	return netip.PrefixFrom(netip.AddrFrom4(a), int(w&0xff))
}

// Get returns the value of a prefix, the zero value where there is none.
func (m *Map[V]) Get(p netip.Prefix) V {
	if w, ok := word(p); ok {
		return m.four[w]
	}
	return m.rest[p]
}

// Set sets the value of a prefix.
func (m *Map[V]) Set(p netip.Prefix, v V) {
	if w, ok := word(p); ok {
		if m.four == nil {
			m.four = make(map[uint64]V)
		}
		m.four[w] = v
		return
	}
	if m.rest == nil {
		m.rest = make(map[netip.Prefix]V)
	}
	m.rest[p] = v
}

// Delete removes a prefix.
func (m *Map[V]) Delete(p netip.Prefix) {
	if w, ok := word(p); ok {
		delete(m.four, w)
		return
	}
	delete(m.rest, p)
}

// Len is how many prefixes there are.
func (m *Map[V]) Len() int { return len(m.four) + len(m.rest) }

// All yields everything, in no order. Entries may be removed meanwhile.
func (m *Map[V]) All() iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		for w, v := range m.four {
			if !yield(prefix(w), v) {
				return
			}
		}
		for p, v := range m.rest {
			if !yield(p, v) {
				return
			}
		}
	}
}
