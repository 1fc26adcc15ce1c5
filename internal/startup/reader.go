package startup

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// reader reads variables and collects what is wrong with them.
type reader struct {
	env   func(string) string
	errs  []error
	notes []string
}

// bad tells what is wrong with a variable's value, and what to do.
func (r *reader) bad(name, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s=%q: %s", name, r.env(name), fmt.Sprintf(format, args...)))
}

func (r *reader) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *reader) or(name, otherwise string) string {
	if v := r.env(name); v != "" {
		return v
	}
	return otherwise
}

// boolean reads a switch; an empty value is one that is not set.
func (r *reader) boolean(name string, otherwise bool) bool {
	switch strings.ToLower(r.env(name)) {
	case "":
		return otherwise
	case "true", "1", "yes", "y", "t":
		return true
	case "false", "0", "no", "n", "f":
		return false
	}
	r.bad(name, "write true or false, or unset it for %v", otherwise)
	return otherwise
}

// backend reads CALICO_NETWORKING_BACKEND, and the variable there was before it.
func (r *reader) backend() cluster.Backend {
	v := strings.ToLower(strings.TrimSpace(r.env(EnvBackend)))
	switch v {
	case "":
		if r.env(EnvNetworking) == "false" {
			return cluster.BackendNone
		}
		return cluster.BackendBird
	case "bird", "gobgp":
		return cluster.BackendBird
	case "vxlan":
		return cluster.BackendVXLAN
	case "none":
		return cluster.BackendNone
	}
	r.bad(EnvBackend, "write bird, vxlan or none")
	return cluster.BackendBird
}

// address reads IP or IP6, and its method where that will be used.
func (r *reader) address(name, method string, f cluster.Family) (a AddressSetting) {
	v := strings.TrimSpace(r.env(name))
	switch v {
	case "":
		a.Mode = Unset
	case "autodetect":
		a.Mode = Autodetect
	case "none":
		a.Mode = None
	default:
		a.Mode = Explicit
		a.Addr, a.Bare = r.host(name, v, f)
	}
	if a.Mode == Autodetect || a.Mode == Unset {
		var err error
		if a.Method, err = ParseMethod(r.env(method), f); err != nil {
			r.bad(method, "%v", err)
		}
	}
	return a
}

func (r *reader) host(name, v string, f cluster.Family) (p netip.Prefix, bare bool) {
	p, err := netip.ParsePrefix(v)
	if err != nil {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			r.bad(name, "write autodetect, none, or an %v address of this host with or without its prefix length, as in %s", f, example(f))
			return netip.Prefix{}, false
		}
		p, bare = netip.PrefixFrom(a, a.BitLen()), true
	}
	a := p.Addr()
	switch {
	case a.Is4In6() || cluster.FamilyOf(a) != f:
		r.bad(name, "that is not an %v address: write one as in %s", f, example(f))
	case !a.IsGlobalUnicast():
		r.bad(name, "other nodes cannot reach that address: write a unicast address of this host, as in %s", example(f))
	default:
		return p, bare
	}
	return netip.Prefix{}, false
}

func example(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "192.0.2.7/24"
	}
	return "2001:db8::7/64"
}

func (r *reader) poll() time.Duration {
	v := r.env(EnvPoll)
	if v == "" {
		return defaultPoll
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second {
		r.bad(EnvPoll, "write a duration of at least a second with its unit, as in 60s or 5m")
		return defaultPoll
	}
	return d
}

func (r *reader) asn() uint32 {
	v := r.env(EnvAS)
	if v == "" {
		return 0
	}
	n, err := calico.ParseASNumber(v)
	if err == nil && n == 0 { // RFC 7607
		err = fmt.Errorf("the AS number 0 is reserved: write another, or unset it for the cluster's")
	}
	if err != nil {
		r.bad(EnvAS, "%v", err)
	}
	return uint32(n)
}

func (r *reader) routerID() RouterID {
	v := r.env(EnvRouterID)
	switch v {
	case "":
		return RouterID{}
	case "hash":
		return RouterID{Hash: true}
	}
	a, err := netip.ParseAddr(v)
	if err != nil || !a.Is4() || a.IsUnspecified() { // RFC 6286: four bytes, not all zero
		r.bad(EnvRouterID, "write hash, or four numbers as in 192.0.2.7, or unset it for the node's IPv4 address")
		return RouterID{}
	}
	return RouterID{Addr: a}
}

// mtu reads a number of bytes; 0 is Calico's word for "not set" (ConfigMap calico-config, veth_mtu).
func (r *reader) mtu(name string) int {
	v := r.env(name)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 65535 || n != 0 && n < 68 { // RFC 791 section 3.2
		r.bad(name, "write the MTU in bytes, from 68 to 65535, or 0 for one that fits the host's interfaces")
		return 0
	}
	return n
}

func (r *reader) pattern(name string) string {
	v := r.env(name)
	if _, err := regexp.Compile(v); err != nil {
		r.bad(name, "%v: write a regular expression of interface names, as in ^eth.*", err)
		return ""
	}
	return v
}

// mode reads how a default pool is encapsulated.
func (r *reader) mode(name string) cluster.Mode {
	switch strings.ToLower(r.env(name)) {
	case "", "off", "never":
		return cluster.Never
	case "always":
		return cluster.Always
	case "crosssubnet", "cross-subnet":
		return cluster.CrossSubnet
	}
	r.bad(name, "write Never, Always or CrossSubnet")
	return cluster.Never
}

// ranges reads CIDRs with commas between them.
func (r *reader) ranges(name string) (out []netip.Prefix) {
	for v := range strings.SplitSeq(r.env(name), ",") {
		if v = strings.TrimSpace(v); v == "" {
			continue
		}
		p, err := netip.ParsePrefix(v)
		if err != nil || p.Addr().Is4In6() {
			r.bad(name, "write a CIDR, as in 10.96.0.0/12, or several with commas")
			continue
		}
		out = append(out, p.Masked())
	}
	return out
}
