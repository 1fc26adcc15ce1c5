package calico

import (
	"fmt"
	"strings"
)

// Calico's selector grammar (libcalico-go: lib/selector), whitespace between any two words being free:
//
//	or      = and { "||" and }
//	and     = unary { "&&" unary }
//	unary   = { "!" } ( "(" or ")" | "all()" | "global()" | "has(" label ")" | test )
//	test    = label ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
//	        | label ( "in" | "not in" ) "{" [ string { "," string } [ "," ] ] "}"
//	label   = letters, digits, "_", ".", "/", "-"
//	string  = "..." or '...', without escapes
//
// The functions are words only right before their parenthesis, and the operators only behind a label, so labels may be
// named like them: in in {"in"} is a selector.

// maxNesting bounds the recursion of the parser. Calico limits a selector to 1,024 characters.
const maxNesting = 512

// ParseSelector parses a selector. The empty selector is all().
func ParseSelector(s string) (*Selector, error) {
	p := &selectorParser{text: s}
	p.space()
	if p.done() {
		return &Selector{root: all{}}, nil
	}
	root, err := p.or()
	if err == nil && !p.done() {
		err = p.errorf("expected && or || or the end")
	}
	if err != nil {
		return nil, err
	}
	return &Selector{root: root, global: p.global}, nil
}

// selectorParser is a recursive descent over the text. pos never stands on a blank.
type selectorParser struct {
	text   string
	pos    int
	depth  int
	global bool
}

func (p *selectorParser) rest() string { return p.text[p.pos:] }
func (p *selectorParser) done() bool   { return p.pos == len(p.text) }

func (p *selectorParser) space() {
	for p.pos < len(p.text) && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t') {
		p.pos++
	}
}

// take skips a word and the blanks behind it.
func (p *selectorParser) take(word string) bool {
	if !strings.HasPrefix(p.rest(), word) {
		return false
	}
	p.pos += len(word)
	p.space()
	return true
}

func (p *selectorParser) errorf(format string, args ...any) error {
	where := "at the end"
	if !p.done() {
		where = fmt.Sprintf("at character %d", p.pos+1)
	}
	return fmt.Errorf("selector %q, %s: %s", p.text, where, fmt.Sprintf(format, args...))
}

func (p *selectorParser) or() (term, error) {
	terms, err := p.chain("||", p.and)
	if err != nil || len(terms) == 1 {
		return first(terms), err
	}
	return or(terms), nil
}

func (p *selectorParser) and() (term, error) {
	terms, err := p.chain("&&", p.unary)
	if err != nil || len(terms) == 1 {
		return first(terms), err
	}
	return and(terms), nil
}

func first(terms []term) term {
	if len(terms) == 0 {
		return nil
	}
	return terms[0]
}

// chain parses one or more operands between operators.
func (p *selectorParser) chain(op string, operand func() (term, error)) ([]term, error) {
	var terms []term
	for {
		t, err := operand()
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
		if !p.take(op) {
			return terms, nil
		}
	}
}

func (p *selectorParser) unary() (term, error) {
	negate := false
	for !strings.HasPrefix(p.rest(), "!=") && p.take("!") {
		negate = !negate
	}
	t, err := p.primary()
	if err == nil && negate {
		t = not{t}
	}
	return t, err
}

func (p *selectorParser) primary() (term, error) {
	switch {
	case p.take("("):
		return p.parenthesis()
	case p.take("all("):
		return all{}, p.expect(")")
	case p.take("global("):
		p.global = true
		return global{}, p.expect(")")
	case p.take("has("):
		label := p.label()
		if label == "" {
			return nil, p.errorf("expected the name of a label")
		}
		return has(label), p.expect(")")
	}
	label := p.label()
	if label == "" {
		return nil, p.errorf("expected a label, has(), all(), global(), ! or (")
	}
	return p.test(label)
}

func (p *selectorParser) parenthesis() (term, error) {
	if p.depth++; p.depth > maxNesting {
		return nil, p.errorf("more than %d parentheses inside one another", maxNesting)
	}
	defer func() { p.depth-- }()
	t, err := p.or()
	if err != nil {
		return nil, err
	}
	return t, p.expect(")")
}

func (p *selectorParser) expect(word string) error {
	if !p.take(word) {
		return p.errorf("expected %s", word)
	}
	return nil
}

// test parses what stands behind a label.
func (p *selectorParser) test(label string) (term, error) {
	switch {
	case p.take("=="):
		return p.comparison(label, opEqual)
	case p.take("!="):
		return p.comparison(label, opNotEqual)
	case p.take("contains"):
		return p.comparison(label, opContains)
	case p.takeTwo("starts", "with"):
		return p.comparison(label, opStarts)
	case p.takeTwo("ends", "with"):
		return p.comparison(label, opEnds)
	case p.takeTwo("not", "in"):
		return p.set(label, true)
	case p.take("in"):
		return p.set(label, false)
	}
	return nil, p.errorf("expected ==, !=, in, not in, contains, starts with or ends with behind the label %s", label)
}

func (p *selectorParser) takeTwo(a, b string) bool {
	start := p.pos
	if p.take(a) && p.take(b) {
		return true
	}
	p.pos = start
	return false
}

func (p *selectorParser) comparison(label string, op operator) (term, error) {
	value, err := p.str()
	return compare{label: label, op: op, value: value}, err
}

func (p *selectorParser) set(label string, negate bool) (term, error) {
	if err := p.expect("{"); err != nil {
		return nil, err
	}
	a := among{label: label, negate: negate}
	for !strings.HasPrefix(p.rest(), "}") {
		v, err := p.str()
		if err != nil {
			return nil, err
		}
		a.values = append(a.values, v)
		if !p.take(",") {
			break
		}
	}
	return a, p.expect("}")
}

func (p *selectorParser) str() (string, error) {
	if p.done() || (p.text[p.pos] != '"' && p.text[p.pos] != '\'') {
		return "", p.errorf("expected a value in quotes")
	}
	end := strings.IndexByte(p.text[p.pos+1:], p.text[p.pos])
	if end < 0 {
		return "", p.errorf("the quote is not closed")
	}
	v := p.text[p.pos+1 : p.pos+1+end]
	p.pos += end + 2
	p.space()
	return v, nil
}

func (p *selectorParser) label() string {
	start := p.pos
	for p.pos < len(p.text) && isLabelChar(p.text[p.pos]) {
		p.pos++
	}
	l := p.text[start:p.pos]
	p.space()
	return l
}

func isLabelChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '/' || c == '-'
}
