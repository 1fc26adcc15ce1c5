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
	encode := func(b []byte, i int) ([]byte, error) { return appendRouteOp(b, ops[i]) }
	err := k.routes.write(ctx, len(ops), encode, func(i int, err error) {
		if missing := (*Refusal)(nil); ops[i].Verb == Delete && errors.As(err, &missing) && missing.Meaning == ErrNoNexthop {
			err = &Refusal{Errno: missing.Errno, Meaning: ErrNotThere, Message: missing.Message} // no object, so no route by it
		}
		failed(i, fmt.Errorf("%s: %w", ops[i], err))
	})
	if err != nil {
		return fmt.Errorf("write routes: %w", err)
	}
	return nil
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
