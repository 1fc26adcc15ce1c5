package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/test/peers/injector"
)

// writer writes what it is told to in batches of the kernel room's choice.
type writer struct {
	kernel kernel.Kernel
	link   int
	ops    []kernel.RouteOp
	hops   map[netip.Addr][]kernel.NextHop
	err    error
}

func newWriter(p *place) (*writer, error) {
	k, err := kernel.Open(kernel.Options{Namespace: p.router.Path()})
	if err != nil {
		return nil, err
	}
	w := &writer{kernel: k, hops: map[netip.Addr][]kernel.NextHop{}}
	links, err := k.ListLinks(context.Background())
	if err == nil {
		i := slices.IndexFunc(links, func(l kernel.Link) bool { return l.Name == "eth0" })
		if i >= 0 {
			w.link = links[i].Index
			return w, nil
		}
		err = errors.New("no eth0")
	}
	return nil, errors.Join(fmt.Errorf("links of the router's namespace: %w", err), k.Close())
}

func (w *writer) close() error { return errors.Join(w.err, w.kernel.Close()) }

func (w *writer) add(v kernel.Verb, prefixes []netip.Prefix, via netip.Addr) {
	hops := w.hops[via]
	if hops == nil {
		hops = []kernel.NextHop{{Gateway: via, Link: w.link, Weight: 1}}
		w.hops[via] = hops
	}
	made := make([]kernel.Route, len(prefixes))
	for i, p := range prefixes {
		made[i] = kernel.Route{Dst: p, Metric: 1024, Type: kernel.Unicast, Protocol: kernel.ProtoCaracal, NextHops: hops}
		w.ops = append(w.ops, kernel.RouteOp{Verb: v, Route: &made[i]})
	}
}

func (w *writer) flush() error {
	err := w.kernel.WriteRoutes(context.Background(), w.ops, func(i int, err error) {
		w.err = fmt.Errorf("%s: %w", w.ops[i].Route.Dst, err)
	})
	w.ops = w.ops[:0]
	return errors.Join(err, w.err)
}

// update writes one UPDATE, which holds several hundred prefixes when there are many: a batch.
func (w *writer) update(u *injector.Update) {
	w.add(kernel.Delete, u.Withdrawn, injectorAddr)
	w.add(kernel.Replace, u.Announced, u.NextHop)
	for len(w.ops) > 0 && w.err == nil {
		w.err = w.flush()
	}
}

// reader counts prefixes and tells when there are as many as were waited for.
type reader struct {
	mu   sync.Mutex
	have int
	want int
	done chan time.Time
}

func (r *reader) update(u *injector.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.have += len(u.Announced)
	if r.done != nil && r.have >= r.want {
		r.done <- time.Now()
		r.done = nil
	}
}

// time does something and returns how long it took until n more prefixes had arrived.
func (r *reader) time(ctx context.Context, limit time.Duration, n int, do func() error) (time.Duration, error) {
	done := make(chan time.Time, 1)
	r.mu.Lock()
	r.want, r.done = r.have+n, done
	r.mu.Unlock()
	start := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case at := <-done:
		return at.Sub(start), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("the prefixes did not arrive: %w", ctx.Err())
	}
}
