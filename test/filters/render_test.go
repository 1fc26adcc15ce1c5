package filters

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// birdRule writes one rule of a BGPFilter as Calico's templates do.
func birdRule(r *calico.BGPFilterRule) string {
	var conditions, body []string
	if r.CIDR != "" {
		operand := r.CIDR
		if l := r.PrefixLength; l != nil {
			p := netip.MustParsePrefix(r.CIDR)
			low, high := p.Bits(), p.Addr().BitLen()
			if l.Min != nil {
				low = max(low, *l.Min)
			}
			if l.Max != nil {
				high = min(high, *l.Max)
			}
			operand = fmt.Sprintf("[ %s{%d,%d} ]", r.CIDR, low, high)
		}
		conditions = append(conditions, fmt.Sprintf("(net %s %s)", map[string]string{"Equal": "=", "NotEqual": "!=", "In": "~", "NotIn": "!~"}[r.MatchOperator], operand))
	}
	if r.Source != "" {
		conditions = append(conditions, "((defined(source))&&(source ~ [ RTS_BGP ]))")
	}
	if r.Interface != "" {
		conditions = append(conditions, fmt.Sprintf("((defined(ifname))&&(ifname ~ %q))", r.Interface))
	}
	if r.Communities != nil {
		value, list := birdCommunity(r.Communities.Values[0])
		conditions = append(conditions, fmt.Sprintf("(%s ~ %s)", value, list))
	}
	if len(r.ASPathPrefix) > 0 {
		conditions = append(conditions, fmt.Sprintf("(bgp_path ~ [= %s * =])", strings.Trim(fmt.Sprint(numbers(r.ASPathPrefix)), "[]")))
	}
	if r.Priority != nil {
		conditions = append(conditions, fmt.Sprintf("(bgp_local_pref = %d)", maxPref-*r.Priority))
	}
	for _, o := range r.Operations {
		switch {
		case o.AddCommunity != nil:
			value, list := birdCommunity(o.AddCommunity.Value)
			body = append(body, fmt.Sprintf("%s.add(%s);", list, value))
		case o.PrependASPath != nil:
			for _, as := range slices.Backward(o.PrependASPath.Prefix) {
				body = append(body, fmt.Sprintf("bgp_path.prepend(%d);", as))
			}
		default:
			body = append(body, fmt.Sprintf("bgp_local_pref = %d;", maxPref-*o.SetPriority.Value))
		}
	}
	body = append(body, strings.ToLower(r.Action)+";")
	text := strings.Join(body, " ")
	if len(conditions) > 0 {
		text = fmt.Sprintf("if (%s) then { %s }", strings.Join(conditions, "&&"), text)
	}
	switch r.PeerType {
	case "iBGP":
		return "if (same) then { " + text + " }"
	case "eBGP":
		return "if (!same) then { " + text + " }"
	}
	return text
}

func numbers(list []calico.ASNumber) (out []uint32) {
	for _, as := range list {
		out = append(out, uint32(as))
	}
	return out
}

// birdCommunity returns a community and the attribute that it is in.
func birdCommunity(s string) (value, list string) {
	list = "bgp_community"
	if strings.Count(s, ":") == 2 {
		list = "bgp_large_community"
	}
	return "(" + strings.ReplaceAll(s, ":", ", ") + ")", list
}

// birdFunction writes one list of a BGPFilter.
func birdFunction(name string, rules []calico.BGPFilterRule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "function %s(bool same) {\n", name)
	for i := range rules {
		fmt.Fprintf(&b, "  %s\n", birdRule(&rules[i]))
	}
	return b.String() + "}\n"
}

// birdDefaults writes what decides where no rule does.
func birdDefaults(w *world, v6 bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) }
	of := func(p netip.Prefix) bool { return p.Addr().Is6() == v6 }
	fmt.Fprintf(&b, "function exported%s(bool same) {\n", digit(v6))
	for _, p := range w.objects.Pools {
		if of(p.CIDR) && p.DisableBGPExport {
			line("if (net ~ %s) then { reject; }", p.CIDR)
		}
	}
	for _, a := range w.objects.BGP.Advertisements {
		if of(a.CIDR) {
			for _, c := range a.Communities {
				value, list := birdCommunity(c.String())
				line("if (net ~ %s) then { %s.add(%s); }", a.CIDR, list, value)
			}
		}
	}
	for _, a := range w.objects.Affinities {
		if of(a.CIDR) && a.Node == "a" && a.State != cluster.PendingDeletion {
			line("if (net = %s) then { accept; }", a.CIDR)
			line("if (net ~ %s) then { if (defined(krt_metric) && (krt_metric < 1024)) then { accept; } reject; }", a.CIDR)
		}
	}
	services := slices.DeleteFunc(slices.Concat(w.objects.BGP.ServiceClusterIPs, w.objects.BGP.ServiceLoadBalancerIPs), func(p netip.Prefix) bool { return !of(p) })
	for _, p := range services {
		line("if (net ~ %s) then { accept; }", p)
	}
	for _, p := range w.objects.Pools {
		if of(p.CIDR) && !p.DisableBGPExport {
			line("if (net ~ %s) then { accept; }", p.CIDR)
		}
	}
	fmt.Fprintf(&b, "}\nfilter kernel%s {\n", digit(v6))
	for _, p := range services {
		line("if (net ~ %s) then { reject; }", p)
	}
	line("if (defined(source) && (source = RTS_BGP) && !defined(krt_metric)) then { krt_metric = 1024; if (defined(bgp_local_pref)) then { krt_metric = 2147483647 - bgp_local_pref; } }")
	for _, p := range w.objects.Pools {
		if of(p.CIDR) && p.VXLANMode == cluster.Always {
			line("if (net ~ %s) then { reject; }", p.CIDR)
		}
	}
	line("accept;")
	return b.String() + "}\n"
}

const prologue = `if (defined(source) && source = RTS_BGP && defined(bgp_local_pref)) then { krt_metric = 2147483647 - bgp_local_pref; }
  else { if (!defined(krt_metric)) then { krt_metric = 1024; } bgp_local_pref = 2147483647 - krt_metric; }`

func digit(v6 bool) string { return map[bool]string{false: "4", true: "6"}[v6] }

// header is what the node's BIRD has once.
func header(w *world) string {
	families := map[bool]string{true: "ipv4; ipv6; "}[w.bird2]
	return "log stderr all;\nrouter id 192.0.2.1;\nprotocol device { scan time 60; }\nprotocol direct { " + families + "interface -\"cali*\", \"*\"; }\n"
}

// birdConfig is the configuration of the node's BIRD, without the header. BIRD 2 has one for both families.
func birdConfig(w *world, v6 bool) string {
	f, n := w.family(v6), digit(v6)
	channel := func(text string) string {
		if w.bird2 {
			return "ipv" + n + " { " + text + " };"
		}
		return text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "protocol static own%s {\n  %s\n", n, map[bool]string{true: "ipv" + n + ";"}[w.bird2])
	for _, p := range f.blackholes {
		fmt.Fprintf(&b, "  route %s blackhole;\n", p)
	}
	fmt.Fprintf(&b, "}\nprotocol kernel { learn; scan time 1; %s }\n%s", channel("import all; export none;"), birdDefaults(w, v6))
	session := func(name string, host int, as uint32, rest, routes string) {
		fmt.Fprintf(&b, "protocol bgp %s {\n  local %s as %d;\n  neighbor %s as %d;\n  multihop; passive on; %s\n  %s\n}\n",
			name, f.local(host), ownAS, f.feeder(host), as, rest, channel("gateway recursive; "+routes))
	}
	session("from_inside"+n, insideHost, ownAS, "", "import all; export none;")
	session("from_outside"+n, outsideHost, outsideAS, "", "import all; export none;")
	for i, p := range w.peers {
		spec, id := &w.filters[i].Spec, fmt.Sprintf("%d_%s", i, n)
		in, out := spec.ImportV4, spec.ExportV4
		if v6 {
			in, out = spec.ImportV6, spec.ExportV6
		}
		same := p.as == ownAS
		b.WriteString(birdFunction("in"+id, in) + birdFunction("out"+id, out))
		fmt.Fprintf(&b, "filter import%s {\n  in%s(%v);\n  accept;\n}\n", id, id, same)
		fmt.Fprintf(&b, "filter export%s {\n  %s\n  out%s(%v);\n  exported%s(%v);\n  reject;\n}\n", id, prologue, id, same, n, same)
		rest := ""
		if w.reflector && same {
			rest = "rr client; rr cluster id 10.9.9.9;"
		}
		session("to"+id, p.host, p.as, rest, fmt.Sprintf("import none; export filter export%s;", id))
	}
	return b.String()
}

// feederConfig is the configuration of the BIRD that all its sessions are with.
func feederConfig(w *world, v6 bool) string {
	f := w.family(v6)
	var b strings.Builder
	fmt.Fprintf(&b, "log stderr all;\nrouter id 192.0.2.9;\nprotocol device { scan time 60; }\nprotocol static inside {\n")
	for i := range f.learned {
		fmt.Fprintf(&b, "  route %s blackhole;\n", f.learned[i].Prefix)
	}
	b.WriteString("}\n")
	for _, external := range []bool{false, true} {
		fmt.Fprintf(&b, "filter feed_%v {\n", external)
		for i := range f.learned {
			r := &f.learned[i]
			if r.external != external {
				continue
			}
			fmt.Fprintf(&b, "  if net = %s then { bgp_next_hop = %s; bgp_local_pref = %d;", r.Prefix, r.NextHop, r.LocalPref)
			for _, as := range slices.Backward(r.ASPath) {
				fmt.Fprintf(&b, " bgp_path.prepend(%d);", as)
			}
			for _, c := range r.Communities {
				value, list := birdCommunity(c.String())
				fmt.Fprintf(&b, " %s.add(%s);", list, value)
			}
			b.WriteString(" accept; }\n")
		}
		b.WriteString("  reject;\n}\n")
	}
	session := func(name string, host int, as uint32, rest string) {
		fmt.Fprintf(&b, "protocol bgp %s {\n  local %s as %d;\n  neighbor %s as %d;\n  multihop; connect delay time 1; connect retry time 1; error wait time 1, 1; import none; %s\n}\n",
			name, f.feeder(host), as, f.local(host), ownAS, rest)
	}
	session("inside_", insideHost, ownAS, "export filter feed_false;")
	session("outside_", outsideHost, outsideAS, "export filter feed_true;")
	for i, p := range w.peers {
		session(fmt.Sprintf("from%d", i), p.host, p.as, "export none;")
	}
	return b.String()
}
