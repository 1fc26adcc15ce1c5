package kerneltest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// verbs runs every verb against everything that may already be under the key. Routes are written "who:hops", hops being
// digits (gateways on w0), "nh1" (by nexthop object 1), "dev" (on the link) or "blackhole", with "@metric" where it is not 1024.
func verbs(t *testing.T, open func(t *testing.T) *Machine, v6 bool) {
	both := func(s string) [2]string { return [2]string{s, s} }
	same := func(err error) [2]error { return [2]error{err, err} }
	tests := []struct {
		existing string // what is there, the second and later appended by other programs
		op       string
		err      [2]error  // in IPv4, in IPv6
		after    [2]string // in the kernel's order
	}{
		{"", "add ours:1", same(nil), both("ours:1")},
		{"", "replace ours:1", same(nil), both("ours:1")},
		{"", "delete ours:1", same(kernel.ErrNotThere), both("")},
		{"", "add ours:dev", same(nil), both("ours:dev")},
		{"", "add ours:blackhole", same(nil), both("ours:blackhole")},
		{"", "add ours:12", same(nil), both("ours:12")},

		{"ours:1", "add ours:1", same(kernel.ErrExists), both("ours:1")},
		{"ours:1", "add ours:2", same(kernel.ErrExists), both("ours:1")},
		{"ours:1", "replace ours:1", same(nil), both("ours:1")},
		{"ours:1", "replace ours:2", same(nil), both("ours:2")},
		{"ours:1", "replace ours:dev", same(nil), both("ours:dev")},
		{"ours:dev", "replace ours:1", same(nil), both("ours:1")},
		{"ours:1", "delete ours:1", same(nil), both("")},
		// IPv6 deletes name the next hops, so that a sibling of another program stays.
		{"ours:1", "delete ours:2", [2]error{nil, kernel.ErrNotThere}, [2]string{"", "ours:1"}},
		{"ours:dev", "delete ours:dev", same(nil), both("")},
		{"ours:1", "delete ours:1@50", same(kernel.ErrNotThere), both("ours:1")},
		{"ours:1", "delete ours:none", same(nil), both("")},

		{"ours:blackhole", "add ours:blackhole", same(kernel.ErrExists), both("ours:blackhole")},
		{"ours:blackhole", "replace ours:1", same(nil), both("ours:1")},
		{"ours:1", "replace ours:blackhole", same(nil), both("ours:blackhole")},
		{"ours:12", "replace ours:blackhole", same(nil), both("ours:blackhole")},
		{"ours:blackhole", "delete ours:blackhole", same(nil), both("")},
		{"ours:1", "delete ours:blackhole", same(kernel.ErrNotThere), both("ours:1")},
		{"ours:blackhole", "delete ours:1", same(kernel.ErrNotThere), both("ours:blackhole")},
		{"other:blackhole", "delete ours:blackhole", same(kernel.ErrNotThere), both("other:blackhole")},

		{"ours:12", "add ours:1", same(kernel.ErrExists), both("ours:12")},
		{"ours:12", "replace ours:3", same(nil), both("ours:3")},
		{"ours:12", "replace ours:23", same(nil), both("ours:23")},
		{"ours:1", "replace ours:123", same(nil), both("ours:123")},
		{"ours:blackhole", "replace ours:12", same(nil), both("ours:12")},
		{"ours:12", "delete ours:12", same(nil), both("")},
		{"ours:12", "delete ours:1", same(nil), [2]string{"", "ours:2"}},
		{"ours:12", "delete ours:13", [2]error{nil, kernel.ErrNotThere}, [2]string{"", "ours:2"}},

		// Another program's route under our key: add and delete leave it alone, replace does not.
		{"other:1", "add ours:1", same(kernel.ErrExists), both("other:1")},
		{"other:1", "add ours:2", same(kernel.ErrExists), both("other:1")},
		{"other:dev", "add ours:2", same(kernel.ErrExists), both("other:dev")},
		{"other:blackhole", "add ours:2", same(kernel.ErrExists), both("other:blackhole")},
		{"other:1", "add ours:23", same(kernel.ErrExists), both("other:1")},
		{"other:1", "delete ours:1", same(kernel.ErrNotThere), both("other:1")},
		{"other:1", "delete ours:none", same(kernel.ErrNotThere), both("other:1")},
		{"other:12", "delete ours:12", same(kernel.ErrNotThere), both("other:12")},
		{"other:1", "replace ours:2", same(nil), both("ours:2")},

		// Routes by nexthop object. A delete that names an object is exact, one that does not takes those too: IPv6 does not compare
		// the next hops it names with those of an object.
		{"", "add ours:nh1", same(nil), both("ours:nh1")},
		{"", "replace ours:nh1", same(nil), both("ours:nh1")},
		{"ours:nh1", "add ours:nh1", same(kernel.ErrExists), both("ours:nh1")},
		{"ours:nh1", "add ours:nh2", same(kernel.ErrExists), both("ours:nh1")},
		{"ours:nh1", "add ours:1", same(kernel.ErrExists), both("ours:nh1")},
		{"ours:1", "add ours:nh1", same(kernel.ErrExists), both("ours:1")},
		{"ours:nh1", "replace ours:nh1", same(nil), both("ours:nh1")},
		{"ours:nh1", "replace ours:nh2", same(nil), both("ours:nh2")},
		{"ours:nh1", "replace ours:1", same(nil), both("ours:1")},
		{"ours:nh1", "replace ours:12", same(nil), both("ours:12")},
		{"ours:nh1", "replace ours:blackhole", same(nil), both("ours:blackhole")},
		{"ours:1", "replace ours:nh1", same(nil), both("ours:nh1")},
		{"ours:12", "replace ours:nh1", same(nil), both("ours:nh1")},
		{"ours:dev", "replace ours:nh1", same(nil), both("ours:nh1")},
		{"ours:blackhole", "replace ours:nh1", same(nil), both("ours:nh1")},
		{"ours:nh1", "delete ours:nh1", same(nil), both("")},
		{"ours:nh1", "delete ours:nh2", same(kernel.ErrNotThere), both("ours:nh1")},
		{"ours:nh1", "delete ours:1", same(nil), both("")},
		{"ours:nh1", "delete ours:none", same(nil), both("")},
		{"ours:1", "delete ours:nh1", same(kernel.ErrNotThere), both("ours:1")},
		{"ours:nh1", "delete ours:nh1@50", same(kernel.ErrNotThere), both("ours:nh1")},
		{"other:1", "add ours:nh1", same(kernel.ErrExists), both("other:1")},
		{"other:nh1", "add ours:nh1", same(kernel.ErrExists), both("other:nh1")},
		{"other:nh1", "add ours:2", same(kernel.ErrExists), both("other:nh1")},
		{"other:nh1", "delete ours:nh1", same(kernel.ErrNotThere), both("other:nh1")},
		{"other:nh1", "delete ours:1", same(kernel.ErrNotThere), both("other:nh1")},
		{"other:nh1", "replace ours:nh2", same(nil), both("ours:nh2")},
		{"other:1", "replace ours:nh1", same(nil), both("ours:nh1")},
		{"other:1@50", "add ours:nh1", same(nil), both("other:1@50 ours:nh1")},
		// An object's route is nobody's sibling: IPv6 keeps what another program appends as a route of its own, and so
		// a replace by a route with gateways takes that of the other program, if it has gateways too.
		{"ours:nh1 other:3", "delete ours:nh1", same(nil), both("other:3")},
		{"ours:nh1 other:3", "replace ours:nh2", same(nil), both("ours:nh2 other:3")},
		{"ours:nh1 other:3", "replace ours:2", same(nil), [2]string{"ours:2 other:3", "ours:nh1 ours:2"}},
		{"ours:nh1 other:blackhole", "replace ours:nh2", same(nil), both("ours:nh2 other:blackhole")},
		{"other:3 ours:nh1", "delete ours:nh1", same(nil), both("other:3")},
		{"other:3 ours:nh1", "replace ours:nh2", same(nil), [2]string{"ours:nh2 ours:nh1", "other:3 ours:nh2"}},
		{"other:blackhole ours:nh1", "replace ours:nh2", same(nil), both("ours:nh2 ours:nh1")},

		// Another metric is another key.
		{"other:1@50", "add ours:2", same(nil), both("other:1@50 ours:2")},
		{"other:1@50", "replace ours:2", same(nil), both("other:1@50 ours:2")},
		{"other:1@50", "delete ours:1", same(kernel.ErrNotThere), both("other:1@50")},
		{"ours:1 other:3@2000", "replace ours:2", same(nil), both("ours:2 other:3@2000")},
		{"ours:1 other:3@2000", "delete ours:1", same(nil), both("other:3@2000")},

		// Another program appended its route to ours: IPv4 keeps two routes, IPv6 makes it a sibling, and shows one route
		// with the protocol of the first.
		{"ours:1 other:3", "add ours:2", same(kernel.ErrExists), [2]string{"ours:1 other:3", "ours:13"}},
		{"ours:1 other:3", "delete ours:1", same(nil), both("other:3")},
		{"ours:12 other:3", "delete ours:12", same(nil), both("other:3")},
		{"ours:1 other:3", "delete ours:13", [2]error{nil, kernel.ErrNotThere}, both("other:3")},
		{"ours:1 other:3", "replace ours:2", same(nil), [2]string{"ours:2 other:3", "ours:2"}},
		{"ours:1 other:blackhole", "delete ours:1", same(nil), both("other:blackhole")},
		{"ours:1 other:blackhole", "replace ours:2", same(nil), both("ours:2 other:blackhole")},

		// Or it was there first and ours got appended, by a program with our protocol number.
		{"other:3 ours:1", "delete ours:1", same(nil), both("other:3")},
		{"other:3 ours:1", "replace ours:2", same(nil), [2]string{"ours:2 ours:1", "ours:2"}},
		{"other:blackhole ours:1", "delete ours:1", same(nil), both("other:blackhole")},
		{"other:blackhole ours:1", "replace ours:2", same(nil), [2]string{"ours:2 ours:1", "other:blackhole ours:2"}},
	}
	family := 0
	if v6 {
		family = 1
	}
	for _, tc := range tests {
		t.Run(strings.ReplaceAll(tc.existing+" "+tc.op, " ", "_"), func(t *testing.T) {
			b := newBench(t, open(t), v6)
			if strings.Contains(tc.existing+tc.op, "nh") {
				b.have(b.object(1, b.gw(1)), b.object(2, b.gw(2)))
			}
			for i, word := range strings.Fields(tc.existing) {
				if i == 0 {
					b.must(b.write(kernel.Add, b.parse(word)))
				} else {
					b.must(b.Append(b.parse(word)))
				}
			}
			verb, word, _ := strings.Cut(tc.op, " ")
			err := b.write(map[string]kernel.Verb{"add": kernel.Add, "replace": kernel.Replace, "delete": kernel.Delete}[verb], b.parse(word))
			if want := tc.err[family]; want == nil && err != nil || !errors.Is(err, want) {
				b.Errorf("error %v, want %v", err, want)
			}
			if got := b.notation(); got != tc.after[family] {
				b.Errorf("there is now %q, want %q", got, tc.after[family])
			}
		})
	}
}

// parse reads a route in the notation of verbs; "none" has neither next hops nor type, as a delete that does not care.
func (b *bench) parse(word string) *kernel.Route {
	b.Helper()
	r := b.ours(1)
	who, hops, _ := strings.Cut(word, ":")
	if who == "other" {
		r.Protocol = kernel.ProtoStatic
	}
	hops, metric, ok := strings.Cut(hops, "@")
	if ok {
		if _, err := fmt.Sscan(metric, &r.Metric); err != nil {
			b.Fatal(err)
		}
	}
	switch hops {
	case "nh1", "nh2":
		r.NexthopID = uint32(hops[2] - '0')
	case "none":
		r.Type = 0
	case "blackhole":
		r.Type = kernel.Blackhole
	case "dev":
		r.NextHops = []kernel.NextHop{{Link: b.w0}}
	default:
		for _, n := range hops {
			r.NextHops = append(r.NextHops, kernel.NextHop{Gateway: b.gw(int(n - '0')), Link: b.w0})
		}
	}
	return r
}

// notation writes the routes to the destination of parse.
func (b *bench) notation() string {
	var words []string
	for _, r := range b.list() {
		who := map[kernel.Protocol]string{kernel.ProtoCaracal: "ours", kernel.ProtoStatic: "other"}[r.Protocol]
		var hops strings.Builder
		if r.Type == kernel.Blackhole {
			hops.WriteString("blackhole")
		}
		if r.NexthopID != 0 {
			hops.WriteString(fmt.Sprint("nh", r.NexthopID))
			r.NextHops = nil
		}
		for _, h := range r.NextHops {
			if h.Gateway.IsValid() {
				hops.WriteString(fmt.Sprint(int(last(h.Gateway)) - 10))
			} else {
				hops.WriteString("dev")
			}
		}
		word := who + ":" + hops.String()
		if r.Metric != 1024 {
			word += fmt.Sprintf("@%d", r.Metric)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func last(a netip.Addr) byte {
	raw := a.AsSlice()
	return raw[len(raw)-1]
}
