package startup

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
)

func stored(addr4, addr6 string) (i identity) {
	if addr4 != "" {
		i.addr4 = netip.MustParsePrefix(addr4)
	}
	if addr6 != "" {
		i.addr6 = netip.MustParsePrefix(addr6)
	}
	return i
}

func text(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func TestSettle(t *testing.T) {
	bare := []Interface{on("lo", "127.0.0.1/8")}
	for _, tc := range []struct {
		name   string
		env    string
		stored identity
		host   []Interface // nil: machine()
		want4  string
		want6  string
		notes  string // parts of the notes, joined
		err    string
	}{
		{"first start", "", stored("", ""), nil, "203.0.113.7/26", "", "", ""},
		{"stored is kept", "", stored("192.0.2.7/24", ""), nil, "192.0.2.7/24", "", "", ""},
		{"stored is kept though it is nowhere", "", stored("192.0.2.77/24", ""), nil, "192.0.2.77/24", "", "192.0.2.77 is on no interface of this host; set IP=autodetect", ""},
		{"autodetect replaces stored", "IP=autodetect", stored("192.0.2.7/24", ""), nil, "203.0.113.7/26", "", "", ""},
		{"autodetect finds nothing, stored is kept", "IP=autodetect", stored("192.0.2.7/24", ""), bare, "192.0.2.7/24", "", "the node keeps 192.0.2.7/24", ""},
		{"autodetect finds nothing", "IP=autodetect", stored("", ""), bare, "", "", "", "choose another IP_AUTODETECTION_METHOD, set IP to an address"},
		{"IPv6 is detected only when told", "IP6=", stored("", ""), nil, "203.0.113.7/26", "", "", ""},
		{"both", "IP=autodetect IP6=autodetect", stored("", ""), nil, "203.0.113.7/26", "fd00:1::7/48", "", ""},
		{"IPv6 alone", "IP=none IP6=autodetect", stored("", ""), nil, "", "fd00:1::7/48", "", ""},
		{"IPv6 alone without saying so", "IP6=autodetect", stored("", ""), []Interface{on("eth0", "2001:db8::7/64")}, "", "", "", "set IP to an address, or to none if the node shall have no IPv4 address"},
		{"none keeps what is stored", "IP=none IP6=none", stored("192.0.2.7/24", "2001:db8::7/64"), nil, "192.0.2.7/24", "2001:db8::7/64", "", ""},
		{"none at all", "IP=none", stored("", ""), nil, "", "", "", "neither an IPv4 nor an IPv6 address"},
		{"explicit", "IP=192.0.2.7/28", stored("", ""), nil, "192.0.2.7/28", "", "", ""},
		{"explicit, completed", "IP=192.0.2.7 IP6=2001:db8::7", stored("", ""), nil, "192.0.2.7/24", "2001:db8::7/64", "", ""},
		{"explicit, nowhere", "IP=192.0.2.70/24", stored("", ""), nil, "192.0.2.70/24", "", "IP: 192.0.2.70 is on no interface", ""},
		{"explicit, nowhere and bare", "IP6=2001:db8::70 IP=none", stored("", ""), nil, "", "2001:db8::70/128", "no node is in our subnet", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &Host{Interfaces: tc.host}
			if tc.host == nil {
				h.Interfaces = machine()
			}
			got, notes, err := parse(t, strings.Fields(tc.env)...).settle(tc.stored, h)
			if (tc.err == "") != (err == nil) || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if err == nil && (text(got.addr4) != tc.want4 || text(got.addr6) != tc.want6) {
				t.Errorf("got %v and %v, want %s and %s", got.addr4, got.addr6, tc.want4, tc.want6)
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, tc.notes) || tc.notes == "" && all != "" {
				t.Errorf("notes %q, want %q", all, tc.notes)
			}
		})
	}
}

func TestInterfacesOfTheNode(t *testing.T) {
	v4 := []calico.NodeInterface{{Name: "eth0", Addresses: []string{"192.0.2.7"}}, {Name: "eth1", Addresses: []string{"203.0.113.7"}}}
	both := []calico.NodeInterface{{Name: "eth0", Addresses: []string{"192.0.2.7", "2001:db8::7"}}, {Name: "eth1", Addresses: []string{"203.0.113.7", "fd00:1::7"}}}
	v6 := []calico.NodeInterface{{Name: "eth0", Addresses: []string{"2001:db8::7"}}, {Name: "eth1", Addresses: []string{"fd00:1::7"}}}
	for env, want := range map[string][]calico.NodeInterface{
		"": nil, "IP=none IP6=none": nil, "IP=autodetect": v4, "IP=192.0.2.7": v4, "IP=autodetect IP6=autodetect": both, "IP=none IP6=autodetect": v6, "IP6=autodetect": v6,
	} {
		if diff := cmp.Diff(want, parse(t, strings.Fields(env)...).list(machine())); diff != "" {
			t.Errorf("%q:\n%s", env, diff)
		}
	}
}

func TestASN(t *testing.T) {
	was := stored("192.0.2.7/24", "")
	was.asn = 64513
	for env, want := range map[string]uint32{"": 64513, "AS=64514": 64514} {
		got, _, err := parse(t, env).settle(was, &Host{Interfaces: machine()})
		if err != nil || got.asn != want {
			t.Errorf("%q: %d, %v", env, got.asn, err)
		}
	}
}

func node(name, addr4, addr6 string) *calico.Node {
	n := &calico.Node{}
	n.Name = name
	if addr4 != "" || addr6 != "" {
		n.Spec.BGP = &calico.NodeBGPSpec{IPv4Address: addr4, IPv6Address: addr6}
	}
	return n
}

func TestConflicts(t *testing.T) {
	nodes := []calico.Object{
		node("a", "192.0.2.1/24", "2001:db8::1/64"), node("b", "192.0.2.2", ""), node("c", "", "2001:db8::3/128"),
		node("d", "not an address", "2001:db8::4/64"), node("e", "", ""), node("f", "192.0.2.2/24", ""),
	}
	for _, tc := range []struct{ addr4, addr6, want string }{
		{"192.0.2.1/24", "2001:db8::1/64", ""}, // our own
		{"192.0.2.9/24", "", ""},
		{"192.0.2.2/16", "", "IPv4 b"}, // whatever the masks, and told once
		{"", "2001:db8::3/64", "IPv6 c"},
		{"192.0.2.2/24", "2001:db8::4/64", "IPv4 b IPv6 d"},
		{"", "", ""},
	} {
		got := []string{}
		all := conflicts("a", stored(tc.addr4, tc.addr6), nodes)
		for _, c := range all {
			got = append(got, fmt.Sprint(c.family, " ", c.node))
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s and %s: %q, want %q", tc.addr4, tc.addr6, s, tc.want)
		}
		if len(all) > 0 {
			if err := refusal("a", all); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "DISABLE_NODE_IP_CHECK=true") {
				t.Errorf("refusal: %v", err)
			}
		}
	}
}
