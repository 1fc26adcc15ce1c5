package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// FormatRoute writes a route on one line as ip(8) prints it ("ip route show", with "-N", numbers for protocols), next hops of a
// multipath route included. linkName gives the name of an interface by its index.
func FormatRoute(r *Route, linkName func(int) string) string {
	var b strings.Builder
	if word := r.Type.word(); word != "" {
		b.WriteString(word + " ")
	}
	b.WriteString(formatDst(r))
	if r.TOS != 0 {
		b.WriteString(" tos 0x" + strconv.FormatUint(uint64(r.TOS), 16))
	}
	if r.NexthopID != 0 {
		b.WriteString(" nhid " + strconv.FormatUint(uint64(r.NexthopID), 10))
	}
	if len(r.NextHops) == 1 {
		formatHop(&b, &r.NextHops[0], r.Dst.Addr().Is6(), linkName)
	}
	if r.Table != 0 && r.Table != TableMain {
		b.WriteString(" table " + tableName(r.Table))
	}
	if r.Protocol != ProtoBoot {
		b.WriteString(" proto " + r.Protocol.String())
	}
	if r.Scope == ScopeLink && r.Dst.Addr().Is4() {
		b.WriteString(" scope link")
	}
	if r.Src.IsValid() {
		b.WriteString(" src " + r.Src.String())
	}
	if r.Metric != 0 {
		b.WriteString(" metric " + strconv.FormatUint(uint64(r.Metric), 10))
	}
	if len(r.NextHops) == 1 {
		formatFlags(&b, &r.NextHops[0])
	}
	if r.MTU != 0 {
		b.WriteString(" mtu " + strconv.FormatUint(uint64(r.MTU), 10))
	}
	if len(r.NextHops) > 1 {
		for i := range r.NextHops {
			h := &r.NextHops[i]
			b.WriteString(" nexthop")
			formatHop(&b, h, r.Dst.Addr().Is6(), linkName)
			b.WriteString(" weight " + strconv.Itoa(int(max(h.Weight, 1))))
			formatFlags(&b, h)
		}
	}
	return b.String()
}

func formatDst(r *Route) string {
	switch {
	case r.Dst.Bits() == 0:
		return "default"
	case r.Dst.IsSingleIP():
		return r.Dst.Addr().String()
	default:
		return r.Dst.String()
	}
}

func formatHop(b *strings.Builder, h *NextHop, v6 bool, linkName func(int) string) {
	switch {
	case !h.Gateway.IsValid():
	case h.Gateway.Is6() && !v6:
		b.WriteString(" via inet6 " + h.Gateway.String())
	default:
		b.WriteString(" via " + h.Gateway.String())
	}
	if h.Link != 0 {
		b.WriteString(" dev " + linkName(h.Link))
	}
}

func formatFlags(b *strings.Builder, h *NextHop) {
	if h.Dead {
		b.WriteString(" linkdown")
	}
	if h.Onlink {
		b.WriteString(" onlink")
	}
}

// word is what ip(8) prints before the destination; a unicast route has none.
func (t RouteType) word() string {
	switch t {
	case Unicast, 0:
		return ""
	case Local:
		return "local"
	case Blackhole:
		return "blackhole"
	case Unreachable:
		return "unreachable"
	case Prohibit:
		return "prohibit"
	case Throw:
		return "throw"
	default:
		return "type " + strconv.Itoa(int(t))
	}
}

// String is the type as ip(8) names it.
func (t RouteType) String() string {
	if t == Unicast || t == 0 {
		return "unicast"
	}
	return t.word()
}

// String is the protocol as ip(8) names it without configuration; a number where it has no name.
func (p Protocol) String() string {
	switch p {
	case ProtoKernel:
		return "kernel"
	case ProtoBoot:
		return "boot"
	case ProtoStatic:
		return "static"
	case ProtoBird:
		return "bird"
	default:
		return strconv.Itoa(int(p))
	}
}

func tableName(t uint32) string {
	if t == 255 {
		return "local"
	}
	return strconv.FormatUint(uint64(t), 10)
}

// FormatAnswer writes what the kernel does with packets to dst on one line, much as "ip route get" does.
func FormatAnswer(dst netip.Addr, a *Answer, linkName func(int) string) string {
	var b strings.Builder
	if word := a.Match.Type.word(); word != "" {
		b.WriteString(word + " ")
	}
	b.WriteString(dst.String())
	formatHop(&b, &a.Chosen, dst.Is6(), linkName)
	if a.Src.IsValid() {
		b.WriteString(" src " + a.Src.String())
	}
	return b.String()
}

// String names an operation for errors: verb, destination and the first way out.
func (op RouteOp) String() string {
	var b strings.Builder
	b.WriteString(op.Verb.String() + " ")
	if word := op.Route.Type.word(); word != "" {
		b.WriteString(word + " ")
	}
	b.WriteString("route " + op.Route.Dst.String())
	if op.Route.NexthopID != 0 {
		b.WriteString(" by nexthop id " + strconv.FormatUint(uint64(op.Route.NexthopID), 10))
		return b.String()
	}
	if len(op.Route.NextHops) > 0 {
		h := op.Route.NextHops[0]
		formatHop(&b, &NextHop{Gateway: h.Gateway}, op.Route.Dst.Addr().Is6(), nil)
		b.WriteString(" on link " + strconv.Itoa(h.Link))
	}
	if more := len(op.Route.NextHops) - 1; more > 0 {
		b.WriteString(" and " + strconv.Itoa(more) + " more")
	}
	return b.String()
}

// String is the verb in lower case.
func (v Verb) String() string {
	switch v {
	case Add:
		return "add"
	case Replace:
		return "replace"
	case Delete:
		return "delete"
	default:
		return "verb " + strconv.Itoa(int(v))
	}
}

// String names an operation for errors.
func (op NeighbourOp) String() string {
	n := op.Neighbour
	verb, what := "write", "neighbour"
	if op.Delete {
		verb = "delete"
	}
	if n.FDB {
		what = "FDB entry"
	}
	return fmt.Sprintf("%s %s %s lladdr %s on link %d", verb, what, n.Addr, net.HardwareAddr(n.MAC[:]), n.Link)
}
