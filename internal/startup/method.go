package startup

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// methodKind is how an address is chosen.
type methodKind uint8

const (
	firstFound methodKind = iota
	byInterface
	skipInterface
	byCIDR
	canReach
	internalIP
)

// Method is an autodetection method (IP_AUTODETECTION_METHOD). The zero value is first-found.
type Method struct {
	kind   methodKind
	names  []*regexp.Regexp // of interface= and skip-interface=
	ranges []netip.Prefix   // of cidr=
	target string           // of can-reach=
	text   string
}

// String returns the method as it is written.
func (m Method) String() string {
	if m.text == "" {
		return "first-found"
	}
	return m.text
}

// methods are the words, for the error about one that is none of them.
const methods = "write first-found, interface=REGEX, skip-interface=REGEX, cidr=CIDR, can-reach=HOST or kubernetes-internal-ip"

// ParseMethod reads a method for addresses of a family; an empty one is first-found.
func ParseMethod(s string, f cluster.Family) (Method, error) {
	s = strings.TrimSpace(s)
	m := Method{text: s}
	word, rest, hasRest := strings.Cut(s, "=")
	var err error
	switch {
	case s == "" || s == "first-found":
		return m, nil
	case s == "kubernetes-internal-ip":
		m.kind = internalIP
		return m, nil
	case !hasRest:
		return Method{}, fmt.Errorf("that method is not known: %s", methods)
	case word == "interface":
		m.kind = byInterface
		m.names, err = parseNames(rest)
	case word == "skip-interface":
		m.kind = skipInterface
		m.names, err = parseNames(rest)
	case word == "cidr":
		m.kind = byCIDR
		m.ranges, err = parseRanges(rest, f)
	case word == "can-reach":
		m.kind, m.target = canReach, strings.TrimSpace(rest)
		err = checkTarget(m.target, f)
	default:
		return Method{}, fmt.Errorf("that method is not known: %s", methods)
	}
	if err != nil {
		return Method{}, err
	}
	return m, nil
}

// parseNames reads a list of regular expressions. A comma inside one would end it, as in Calico.
func parseNames(list string) ([]*regexp.Regexp, error) {
	var out []*regexp.Regexp
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			return nil, fmt.Errorf("a name is missing: write regular expressions of interface names with commas between them, as in eth.*,ens.*")
		}
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a regular expression (%w): write one of interface names, as in eth.*", s, err)
		}
		out = append(out, re)
	}
	return out, nil
}

// parseRanges reads a list of address ranges. Those of the other family are of no use but also of no harm where one of ours
// is there too.
func parseRanges(list string, f cluster.Family) ([]netip.Prefix, error) {
	var out []netip.Prefix
	ours := false
	for s := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%q is not a CIDR: write address ranges with commas between them, as in %s", strings.TrimSpace(s), exampleRange(f))
		}
		ours = ours || cluster.FamilyOf(p.Addr()) == f
		out = append(out, p.Masked())
	}
	if !ours {
		return nil, fmt.Errorf("no range is %v: write one as in %s", f, exampleRange(f))
	}
	return out, nil
}

func exampleRange(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "192.0.2.0/24"
	}
	return "2001:db8::/64"
}

func checkTarget(target string, f cluster.Family) error {
	if target == "" || strings.ContainsAny(target, " /") {
		return fmt.Errorf("%q is neither a host name nor an address: write one that this node can reach", target)
	}
	if a, err := netip.ParseAddr(target); err == nil && cluster.FamilyOf(a.Unmap()) != f {
		return fmt.Errorf("%s is not an %v address: write one, or a host name", target, f)
	}
	return nil
}
