package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ListRoutes dumps table main of one family.
func (k *linux) ListRoutes(ctx context.Context, v6 bool, yield func(*Route) bool) error {
	s, err := k.socket()
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	defer s.close()
	// A kernel with strict checking (4.20) dumps just this table; an older one ignores the request's fields.
	req := begin(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	req = append(req, family(v6), 0, 0, 0, TableMain, 0, 0, 0, 0, 0, 0, 0)
	req = appendUint32(req, unix.RTA_TABLE, TableMain)
	var r Route
	var hops []NextHop
	err = s.dump(ctx, req, func(m message) bool {
		if m.typ != unix.RTM_NEWROUTE || !ofMain(m.payload) || !parseRoute(m.payload, &r, hops[:0]) || r.Table != TableMain {
			return true
		}
		hops = r.NextHops
		return yield(&r)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // the table is made with its first route
	}
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	return nil
}

// writeRoutes is WriteRoutes without help for refused onlink gateways.
func (k *linux) writeRoutes(ctx context.Context, ops []RouteOp, failed func(i int, err error)) error {
	for first := 0; ; {
		n, stride := segment(ops[first:])
		if k.opts.MuteAdds && stride == 1 {
			n = alike(ops[first : first+n])
		}
		if err := k.writeSegment(ctx, ops, first, n, stride, failed); err != nil {
			return fmt.Errorf("write routes: %w", err)
		}
		if first += n; first == len(ops) {
			return nil
		}
	}
}

// writeSegment performs n operations from first on, in steps of stride round the segment.
func (k *linux) writeSegment(ctx context.Context, ops []RouteOp, first, n, stride int, failed func(i int, err error)) error {
	at := func(i int) int { return first + i*stride%n }
	encode := func(b []byte, i int) ([]byte, error) { return appendRouteOp(b, ops[at(i)]) }
	w := k.routes
	if n > 0 && ops[first].Verb == Add {
		w = k.adds
	}
	return w.write(ctx, n, encode, func(i int, err error) {
		op := ops[at(i)]
		if missing := (*Refusal)(nil); op.Verb == Delete && errors.As(err, &missing) && missing.Meaning == ErrNoNexthop {
			err = &Refusal{Errno: missing.Errno, Meaning: ErrNotThere, Message: missing.Message} // no object, so no route by it
		}
		failed(at(i), fmt.Errorf("%s: %w", op, err))
	})
}

// scatterFrom is the number of IPv4 deletes in a row from which they are sent scattered: what an ordered run loses is paid
// in grace periods, of which a short one has few.
const scatterFrom = 1024

// segment cuts off the operations that are sent together, and says in which steps: 1, but for a long run of IPv4 deletes.
//
// Deletes in the order of their prefixes empty one corner of the trie after the other, and the kernel halves its large nodes over
// and over. Each halving of a node above 512 KiB waits for a grace period of RCU (resize, replace, synchronize_rcu), on the
// deleting process's time: half of it for 100,000 routes, more on a busy machine. Scattered over the whole run the large nodes
// shrink once. Routes are added faster in order, and IPv6 likes order in both.
func segment(ops []RouteOp) (n, stride int) {
	run := 0
	for i := range ops {
		if ops[i].Verb != Delete || !ops[i].Route.Dst.Addr().Is4() {
			if run >= scatterFrom {
				return i, scatter(i)
			}
			run = 0
			continue
		}
		if run++; run == scatterFrom && i+1 > run {
			return i + 1 - run, 1
		}
	}
	if run >= scatterFrom {
		return run, scatter(run)
	}
	return len(ops), 1
}

// alike counts the operations at the front that go to one socket: adds, or others.
func alike(ops []RouteOp) (n int) {
	for n < len(ops) && (ops[n].Verb == Add) == (ops[0].Verb == Add) {
		n++
	}
	return n
}

// scatter is a step that visits all of n places, neighbours far from one another: the golden section of n, made coprime to it.
func scatter(n int) int {
	const section = 0.6180339887
	stride := int(section * float64(n))
	for gcd(stride, n) != 1 {
		stride++
	}
	return stride
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Lookup asks the kernel twice: for the FIB entry that matches, and for what it makes of it.
func (k *linux) Lookup(ctx context.Context, dst netip.Addr) (Answer, error) {
	a, err := k.lookup(ctx, dst)
	if err != nil {
		return Answer{}, fmt.Errorf("look up %s: %w", dst, err)
	}
	return a, nil
}

func (k *linux) lookup(ctx context.Context, dst netip.Addr) (Answer, error) {
	dst = dst.Unmap()
	if !dst.IsValid() {
		return Answer{}, refuse("no address")
	}
	s, err := k.socket()
	if err != nil {
		return Answer{}, err
	}
	defer s.close()
	var a Answer
	var chosen Route
	err = getRoute(ctx, s, dst, unix.RTM_F_FIB_MATCH, &a.Match)
	if err == nil {
		err = getRoute(ctx, s, dst, 0, &chosen)
	}
	if refused(err) {
		// A blackhole and its like are answered with what they do to a packet, without the route.
		found, scanErr := k.scan(ctx, dst)
		if scanErr != nil || found.hasHops() || !found.Dst.IsValid() {
			return Answer{}, errors.Join(err, scanErr)
		}
		a.Match = found
		chosen, err = Route{}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	if len(chosen.NextHops) > 0 {
		a.Chosen = chosen.NextHops[0]
	}
	a.Src = chosen.Src
	a.Text = FormatAnswer(dst, &a, k.linkName)
	return a, nil
}

// refused reports whether an error is what the kernel gives for blackhole (EINVAL), prohibit (EACCES), unreachable
// (EHOSTUNREACH) and, for IPv6 or without any route, ENETUNREACH.
func refused(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}

func getRoute(ctx context.Context, s *socket, dst netip.Addr, flags uint32, r *Route) error {
	req := begin(nil, unix.RTM_GETROUTE, 0)
	req = append(req, family(dst.Is6()), byte(dst.BitLen()), 0, 0, 0, 0, 0, 0)
	req = binary.NativeEndian.AppendUint32(req, flags)
	m, err := s.exchange(ctx, appendAddr(req, unix.RTA_DST, dst))
	if err != nil {
		return err
	}
	var hops []NextHop
	if m.typ != unix.RTM_NEWROUTE || !parseRoute(m.payload, r, hops) {
		return refuse("answer of type %d to a route lookup", m.typ)
	}
	return nil
}

// scan walks the table for the longest match.
func (k *linux) scan(ctx context.Context, dst netip.Addr) (Route, error) {
	var best Route
	err := k.ListRoutes(ctx, dst.Is6(), func(r *Route) bool {
		if r.Dst.Contains(dst) && (!best.Dst.IsValid() || r.Dst.Bits() > best.Dst.Bits() ||
			r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric) {
			best = *r
			best.NextHops = append([]NextHop(nil), r.NextHops...)
		}
		return true
	})
	return best, err
}

// linkName names an interface for text.
func (k *linux) linkName(index int) string {
	l, err := k.handle.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("if%d", index)
	}
	return l.Attrs().Name
}
