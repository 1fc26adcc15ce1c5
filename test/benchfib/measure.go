package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/test/peers/injector"
)

const (
	stepLimit = 30 * time.Second // of one step; the slowest takes two
	// flapRest lets a system come to rest between two changes, so that each is measured alone.
	flapRest = 3 * time.Millisecond
	settle   = time.Second
	// rest is how long a system may still be busy with the end of its start: with timers, and giving memory back.
	rest = 6 * time.Second
)

// measurement is one subject with one number of prefixes.
type measurement struct {
	*options
	subject subject
	table   table
	n       int  // prefixes in all
	deep    bool // flaps behind a full table are measured, and what it costs at rest
	bare    bool // flaps with nothing behind them are measured
	last    bool // the last run: what is measured once is measured now

	place    *place
	running  running
	sessions []*injector.Session // by peer
}

// figures are what one measurement brings. What does not apply is empty.
type figures struct {
	load, move, withdraw phase
	flapsDeep, flapsBare changes
	empty, resident      int64   // bytes before and after, 0 = not measured
	idle                 float64 // share of a processor, < 0 = not measured
}

// phase is something that was done to every prefix: how long it took to the kernel, and what it cost the system until it was at rest again.
type phase struct{ took, cpu time.Duration }

// changes are single changes: how long each took, and what it cost the system.
type changes struct {
	took []time.Duration
	cpu  time.Duration // of one
}

func (m *measurement) run(ctx context.Context) (f figures, err error) {
	f.idle = -1
	if m.place, err = newPlace(m.table.peers); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, m.place.close()) }()
	if m.running, err = m.subject.start(ctx, m.place, m.table.peers); err != nil {
		return f, err
	}
	defer func() {
		if err != nil && m.running.log != nil {
			err = fmt.Errorf("%w\n%s", err, m.running.log())
		}
		err = errors.Join(err, m.running.stop())
	}()
	if m.running.write != nil {
		return f, m.written(ctx, &f)
	}
	defer func() {
		for _, s := range m.sessions {
			s.Drop()
		}
	}()
	if err := m.connect(ctx); err != nil {
		return f, err
	}
	if m.running.read != nil {
		messages := m.announcement(peerAddr)
		f.load.took, err = m.running.read.time(ctx, stepLimit, m.n, func() error { return m.sendAll(messages) })
		return f, err
	}
	return f, m.measure(ctx, &f)
}

// written takes the figures of what has no session.
func (m *measurement) written(ctx context.Context, f *figures) error {
	all := []struct {
		took *time.Duration
		met  func(*fib) bool
		via  netip.Addr
	}{{&f.load.took, present(m.n), peerAddr(0)}, {&f.move.took, all(m.n, otherOctet), otherHop}, {&f.withdraw.took, none, netip.Addr{}}}
	for _, p := range all {
		var err error
		wanted := prefixes(0, m.n)
		if *p.took, err = m.place.fib.time(ctx, stepLimit, p.met, func() error { return m.running.write(ctx, wanted, p.via) }); err != nil {
			return err
		}
	}
	return nil
}

// connect brings up every session.
func (m *measurement) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	for k := range m.table.peers {
		addr := peerAddr(k)
		s, err := injector.Dial(ctx, injector.Options{
			NS: &m.place.injector, ASN: asn, RouterID: addr, Local: addr, Remote: netip.AddrPortFrom(routerAddr, 179),
			RestartTime: 120 * time.Second,
		})
		if err != nil {
			return err
		}
		m.sessions = append(m.sessions, s)
	}
	return sleep(ctx, settle/2) // the router may still be busy with its own start
}

// announcement encodes everything, by peer, each with a next hop.
func (m *measurement) announcement(via func(peer int) netip.Addr) [][]byte {
	out := make([][]byte, m.table.peers)
	for k := range out {
		out[k] = m.encode(k, prefixes(k*m.table.each, m.table.each), via(k))
	}
	return out
}

func (m *measurement) withdrawal() [][]byte {
	out := make([][]byte, m.table.peers)
	for k := range out {
		out[k] = m.sessions[k].EncodeWithdrawal(prefixes(k*m.table.each, m.table.each)...)
	}
	return out
}

func (m *measurement) encode(peer int, prefixes []netip.Prefix, via netip.Addr) []byte {
	return m.sessions[peer].Encode(injector.Announcement{Prefixes: prefixes, NextHop: via, LocalPref: localPref})
}

// measure takes the figures of a whole chain.
func (m *measurement) measure(ctx context.Context, f *figures) (err error) {
	here, there, gone := m.announcement(peerAddr), m.announcement(func(int) netip.Addr { return otherHop }), m.withdrawal()
	if f.empty, err = resident(m.running.pids); err != nil {
		return err
	}
	if f.load, err = m.send(ctx, "announce", present(m.n), here); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	for _, s := range m.sessions {
		err = errors.Join(err, s.EndOfRIB(false))
	}
	if err != nil || m.loadOnly {
		return err
	}
	if m.last && len(m.running.pids) > 0 {
		if err := m.costs(ctx, f); err != nil {
			return err
		}
	}
	if m.deep && m.last {
		if f.flapsDeep, err = m.flap(ctx); err != nil {
			return fmt.Errorf("flap: %w", err)
		}
	}
	if f.move, err = m.send(ctx, "move", all(m.n, otherOctet), there); err != nil {
		return fmt.Errorf("change the next hop: %w", err)
	}
	if f.withdraw, err = m.send(ctx, "withdraw", none, gone); err != nil {
		return fmt.Errorf("withdraw: %w", err)
	}
	if m.bare && m.last {
		if f.flapsBare, err = m.flap(ctx); err != nil {
			return fmt.Errorf("flap with an empty table: %w", err)
		}
	}
	for _, s := range m.sessions {
		err = errors.Join(err, s.Err())
	}
	return err
}

// send sends everything and waits for the kernel, then for rest.
func (m *measurement) send(ctx context.Context, what string, met func(*fib) bool, messages [][]byte) (p phase, err error) {
	before, err := m.cpuTime()
	if err != nil {
		return p, err
	}
	stop, err := m.record(what)
	if err != nil {
		return p, err
	}
	p.took, err = m.place.fib.time(ctx, stepLimit, met, func() error { return m.sendAll(messages) })
	if err := errors.Join(err, stop(), sleep(ctx, settle)); err != nil {
		return p, err
	}
	after, err := m.cpuTime()
	p.cpu = after - before
	return p, err
}

func (m *measurement) sendAll(messages [][]byte) error {
	for k, b := range messages {
		if len(b) == 0 {
			continue
		}
		if err := m.sessions[k].Send(b); err != nil {
			return err
		}
	}
	return nil
}

// flap withdraws and announces one prefix after the other and returns how long each change took to the kernel.
func (m *measurement) flap(ctx context.Context) (c changes, err error) {
	random := rand.New(rand.NewPCG(1, 2))
	before, err := m.cpuTime()
	if err != nil {
		return c, err
	}
	for range m.changes / 2 {
		i := random.IntN(m.n)
		k := i / m.table.each
		withdraw, announce := make([][]byte, k+1), make([][]byte, k+1)
		withdraw[k], announce[k] = m.sessions[k].EncodeWithdrawal(prefix(i)), m.encode(k, []netip.Prefix{prefix(i)}, peerAddr(k))
		steps := []struct {
			met      func(*fib) bool
			messages [][]byte
		}{{absent(i), withdraw}, {there(i), announce}}
		if !m.place.fib.has(i) {
			steps[0], steps[1] = steps[1], steps[0] // the table is empty, and is so again afterwards
		}
		for _, s := range steps {
			d, err := m.place.fib.time(ctx, stepLimit, s.met, func() error { return m.sendAll(s.messages) })
			if err != nil {
				return c, err
			}
			c.took = append(c.took, d)
			if err := sleep(ctx, flapRest); err != nil {
				return c, err
			}
		}
	}
	after, err := m.cpuTime()
	c.cpu = (after - before) / time.Duration(len(c.took))
	return c, err
}

// cpuTime is 0 for what runs in this process.
func (m *measurement) cpuTime() (time.Duration, error) {
	if len(m.running.pids) == 0 {
		return 0, nil
	}
	return cpuTime(m.running.pids)
}

// costs measures memory and processor at rest.
func (m *measurement) costs(ctx context.Context, f *figures) (err error) {
	if err := sleep(ctx, rest); err != nil {
		return err
	}
	if m.deep && m.idle > 0 {
		if f.idle, err = idleCPU(ctx, m.running.pids, m.idle); err != nil {
			return err
		}
	}
	f.resident, err = resident(m.running.pids)
	return err
}

// record has perf(1) watch caracald meanwhile, where that was asked for.
func (m *measurement) record(what string) (stop func() error, err error) {
	if m.profile == "" || m.subject.name() != "caracald" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(m.profile, 0o755); err != nil {
		return nil, err
	}
	name := filepath.Join(m.profile, fmt.Sprintf("%s-%dx%d.data", what, m.table.peers, m.table.each))
	cmd := exec.Command("perf", "record", "-q", "-g", "-F", "4000", "-p", strconv.Itoa(m.running.pids[0]), "-o", name)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	time.Sleep(settle / 2) // perf says nothing when it has attached
	return func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGINT), ignore(cmd.Wait()))
	}, nil
}
