package calico

import "strings"

// labelNamespace is the label that global() looks for: an object without it belongs to no namespace.
const labelNamespace = "projectcalico.org/namespace"

// Selector is a parsed selector expression. It is immutable.
type Selector struct {
	root   term
	global bool // global() occurs
}

// Match reports whether the labels satisfy the selector. The nil Selector matches nothing.
func (s *Selector) Match(labels map[string]string) bool { return s != nil && s.root.match(labels) }

// IsAll reports whether the selector is plainly all().
func (s *Selector) IsAll() bool {
	if s == nil {
		return false
	}
	_, ok := s.root.(all)
	return ok
}

// UsesGlobal reports whether global() occurs in the selector.
func (s *Selector) UsesGlobal() bool { return s != nil && s.global }

// String returns the selector in one fixed form, which parses to an equal selector.
func (s *Selector) String() string { return s.root.String() }

// term is a node of the expression's tree.
type term interface {
	match(labels map[string]string) bool
	String() string
}

type (
	all    struct{}
	global struct{}
	has    string
	not    struct{ t term }
	and    []term
	or     []term
	// compare is a comparison of one label with one value. Only != is true of a label that is absent.
	compare struct {
		label, value string
		op           operator
	}
	// among is "in" and "not in". Only "not in" is true of a label that is absent.
	among struct {
		label  string
		values []string
		negate bool
	}
)

type operator string

const (
	opEqual    operator = "=="
	opNotEqual operator = "!="
	opContains operator = "contains"
	opStarts   operator = "starts with"
	opEnds     operator = "ends with"
)

func (all) match(map[string]string) bool { return true }

func (global) match(labels map[string]string) bool {
	_, ok := labels[labelNamespace]
	return !ok
}

func (h has) match(labels map[string]string) bool {
	_, ok := labels[string(h)]
	return ok
}

func (n not) match(labels map[string]string) bool { return !n.t.match(labels) }

func (a and) match(labels map[string]string) bool {
	for _, t := range a {
		if !t.match(labels) {
			return false
		}
	}
	return true
}

func (o or) match(labels map[string]string) bool {
	for _, t := range o {
		if t.match(labels) {
			return true
		}
	}
	return false
}

func (c compare) match(labels map[string]string) bool {
	have, ok := labels[c.label]
	switch c.op {
	case opEqual:
		return ok && have == c.value
	case opNotEqual:
		return !ok || have != c.value
	case opContains:
		return ok && strings.Contains(have, c.value)
	case opStarts:
		return ok && strings.HasPrefix(have, c.value)
	default:
		return ok && strings.HasSuffix(have, c.value)
	}
}

func (a among) match(labels map[string]string) bool {
	have, ok := labels[a.label]
	if !ok {
		return a.negate
	}
	for _, v := range a.values {
		if have == v {
			return !a.negate
		}
	}
	return a.negate
}

func (all) String() string    { return "all()" }
func (global) String() string { return "global()" }
func (h has) String() string  { return "has(" + string(h) + ")" }
func (n not) String() string  { return "!" + n.t.String() }
func (a and) String() string  { return join(a, " && ") }
func (o or) String() string   { return join(o, " || ") }

func (c compare) String() string { return c.label + " " + string(c.op) + " " + quote(c.value) }

func (a among) String() string {
	quoted := make([]string, len(a.values))
	for i, v := range a.values {
		quoted[i] = quote(v)
	}
	op := " in {"
	if a.negate {
		op = " not in {"
	}
	return a.label + op + strings.Join(quoted, ", ") + "}"
}

func join(terms []term, op string) string {
	parts := make([]string, len(terms))
	for i, t := range terms {
		parts[i] = t.String()
	}
	return "(" + strings.Join(parts, op) + ")"
}

// quote writes a value with the quotes it does not contain: the grammar has no escapes, so it cannot contain both.
func quote(v string) string {
	if strings.Contains(v, `"`) {
		return "'" + v + "'"
	}
	return `"` + v + `"`
}
