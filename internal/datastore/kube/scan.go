package kube

import (
	"bytes"
	"errors"
	"strconv"
	"unsafe"
)

// errScan: the text is not JSON, or holds something else than was asked for.
var errScan = errors.New("not the JSON that was expected")

// scanner reads JSON in one pass, without making anything of what is skipped. It is made for what an API server sends,
// which has been parsed and written by Go: what is skipped is only looked at as far as is needed to find its end, and a string that
// is asked for must have no escapes. After the first mistake it stands still and returns nothing more; the mistake is
// what object returns.
type scanner struct {
	text []byte
	at   int
	bad  bool
}

// fail notes a mistake.
func (s *scanner) fail(yes bool) { s.bad = s.bad || yes }

// peek returns the next byte that is not white space; 0 at the end.
func (s *scanner) peek() byte {
	for !s.bad && s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// take takes one byte, which must be the one.
func (s *scanner) take(c byte) {
	if s.peek() != c {
		s.bad = true
		return
	}
	s.at++
}

// object reads a whole text that is an object; f is called at each value, and must take it.
func (s *scanner) object(f func(key string)) error {
	s.nested(f)
	if s.bad || s.peek() != 0 {
		return errScan
	}
	return nil
}

// nested reads an object. The key is valid until f returns.
func (s *scanner) nested(f func(key string)) {
	s.list('{', '}', func() {
		key := s.str()
		s.take(':')
		if !s.bad {
			f(key)
		}
	})
}

// array reads an array; f is called at each value, and must take it.
func (s *scanner) array(f func()) {
	if !s.null() {
		s.list('[', ']', f)
	}
}

func (s *scanner) list(open, end byte, f func()) {
	s.take(open)
	if s.peek() == end {
		s.at++
		return
	}
	for !s.bad {
		f()
		if s.peek() == end {
			s.at++
			return
		}
		s.take(',')
	}
}

// str takes a string without escapes. It lies in the text itself: whoever keeps it makes a copy.
func (s *scanner) str() string {
	s.take('"')
	if s.bad {
		return ""
	}
	n := bytes.IndexByte(s.text[s.at:], '"')
	if n < 0 || bytes.IndexByte(s.text[s.at:s.at+n], '\\') >= 0 {
		s.bad = true
		return ""
	}
	out := s.text[s.at : s.at+n]
	s.at += n + 1
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// null takes a null, if that is next.
func (s *scanner) null() bool { return s.word("null") }

// boolean takes true or false.
func (s *scanner) boolean() bool {
	if s.word("true") {
		return true
	}
	s.fail(!s.word("false"))
	return false
}

func (s *scanner) word(w string) bool {
	s.peek()
	if s.bad || !bytes.HasPrefix(s.text[s.at:], []byte(w)) {
		return false
	}
	s.at += len(w)
	return true
}

// number takes an integer.
func (s *scanner) number() int {
	s.peek()
	from := s.at
	s.bare()
	n, err := strconv.Atoi(string(s.text[from:s.at]))
	s.fail(err != nil)
	return n
}

// bare goes to the end of a number or a word.
func (s *scanner) bare() {
	from := s.at
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ',', '}', ']', ' ', '\t', '\n', '\r', '"', ':', '{', '[':
			s.fail(s.at == from)
			return
		}
		s.at++
	}
	s.fail(s.at == from)
}

// raw takes a value whatever it is.
func (s *scanner) raw() []byte {
	s.peek()
	from := s.at
	s.skip()
	if s.bad {
		return nil
	}
	return s.text[from:s.at]
}

// skip goes past a value. Brackets are counted, not matched.
func (s *scanner) skip() {
	switch s.peek() {
	case '"':
		s.skipString()
	case '{', '[':
		depth := 0
		for !s.bad && s.at < len(s.text) {
			switch s.text[s.at] {
			case '"':
				s.skipString()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			s.at++
			if depth == 0 {
				return
			}
		}
		s.bad = true
	case 0:
		s.bad = true
	default:
		s.bare()
	}
}

// skipString goes past a string, from one quote to the next: strings are most of what is skipped, and seldom have escapes.
func (s *scanner) skipString() {
	for s.at++; s.at < len(s.text); s.at++ {
		n := bytes.IndexByte(s.text[s.at:], '"')
		if n < 0 {
			break
		}
		escape := bytes.IndexByte(s.text[s.at:s.at+n], '\\')
		if escape < 0 {
			s.at += n + 1
			return
		}
		s.at += escape + 1 // on what is escaped
	}
	s.bad = true
}
