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
	flaps     = 100
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
	n       int
	deep    bool // flaps behind a full table are measured
	last    bool // the last run: what is measured once is measured now
	bare    bool // flaps with nothing behind them are measured

	place   *place
	running running
	session *injector.Session
}

// figures are what one measurement brings. What does not apply is empty.
type figures struct {
	load, move, withdraw time.Duration
	flapsDeep, flapsBare []time.Duration
	cpu                  time.Duration // that loading took, until all was at rest again
	resident             int64         // bytes, 0 = not measured
	idle                 float64       // share of a processor, < 0 = not measured
}

func (m *measurement) run(ctx context.Context) (f figures, err error) {
	f.idle = -1
	if m.place, err = newPlace(); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, m.place.close()) }()
	if m.running, err = m.subject.start(ctx, m.place); err != nil {
		return f, err
	}
	defer func() {
		if err != nil && m.running.log != nil {
			err = fmt.Errorf("%w\n%s", err, m.running.log())
		}
		err = errors.Join(err, m.running.stop())
	}()
	if m.running.write != nil {
		f.load, err = m.place.fib.time(ctx, stepLimit, present(m.n), func() error { return m.running.write(ctx, prefixes(m.n)) })
		return f, err
	}
	if err := m.connect(ctx); err != nil {
		return f, err
	}
	defer m.session.Drop()
	if m.running.read != nil {
		messages := m.encode(prefixes(m.n), injectorAddr)
		f.load, err = m.running.read.time(ctx, stepLimit, m.n, func() error { return m.session.Send(messages) })
		return f, err
	}
	return f, m.measure(ctx, &f)
}

func (m *measurement) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	m.session, err = injector.Dial(ctx, injector.Options{
		NS: &m.place.injector, ASN: asn, RouterID: injectorAddr, Local: injectorAddr, Remote: netip.AddrPortFrom(routerAddr, 179),
		RestartTime: 120 * time.Second,
	})
	if err != nil {
		return err
	}
	return sleep(ctx, settle/2) // the router may still be busy with its own start
}

func (m *measurement) encode(prefixes []netip.Prefix, via netip.Addr) []byte {
	return m.session.Encode(injector.Announcement{Prefixes: prefixes, NextHop: via, LocalPref: localPref})
}

// measure takes the figures of a whole chain.
func (m *measurement) measure(ctx context.Context, f *figures) (err error) {
	whole := prefixes(m.n)
	here, there, gone := m.encode(whole, injectorAddr), m.encode(whole, otherHop), m.session.EncodeWithdrawal(whole...)
	stop, err := m.record()
	if err != nil {
		return err
	}
	before, err := cpuTime(m.running.pids)
	if err != nil {
		return err
	}
	f.load, err = m.send(ctx, present(m.n), here)
	if err := errors.Join(err, stop()); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	if err := errors.Join(m.session.EndOfRIB(false), sleep(ctx, settle)); err != nil {
		return err
	}
	after, err := cpuTime(m.running.pids)
	if err != nil {
		return err
	}
	f.cpu = after - before
	if m.loadOnly {
		return nil
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
	if f.move, err = m.send(ctx, all(m.n, otherOctet), there); err != nil {
		return fmt.Errorf("change the next hop: %w", err)
	}
	if err := sleep(ctx, settle/2); err != nil {
		return err
	}
	if f.withdraw, err = m.send(ctx, none, gone); err != nil {
		return fmt.Errorf("withdraw: %w", err)
	}
	if m.bare && m.last {
		if f.flapsBare, err = m.flap(ctx); err != nil {
			return fmt.Errorf("flap with an empty table: %w", err)
		}
	}
	return m.session.Err()
}

func (m *measurement) send(ctx context.Context, met func(*fib) bool, messages []byte) (time.Duration, error) {
	return m.place.fib.time(ctx, stepLimit, met, func() error { return m.session.Send(messages) })
}

// flap withdraws and announces one prefix after the other and returns how long each change took to the kernel.
func (m *measurement) flap(ctx context.Context) ([]time.Duration, error) {
	random := rand.New(rand.NewPCG(1, 2))
	var took []time.Duration
	for range flaps {
		i := random.IntN(m.n)
		steps := []struct {
			met      func(*fib) bool
			messages []byte
		}{{absent(i), m.session.EncodeWithdrawal(prefix(i))}, {there(i), m.encode([]netip.Prefix{prefix(i)}, injectorAddr)}}
		if !m.place.fib.has(i) {
			steps[0], steps[1] = steps[1], steps[0] // the table is empty, and is so again afterwards
		}
		for _, s := range steps {
			d, err := m.send(ctx, s.met, s.messages)
			if err != nil {
				return nil, err
			}
			took = append(took, d)
			if err := sleep(ctx, flapRest); err != nil {
				return nil, err
			}
		}
	}
	return took, nil
}

// costs measures memory and processor at rest.
func (m *measurement) costs(ctx context.Context, f *figures) (err error) {
	if m.deep && m.idle > 0 {
		if err := sleep(ctx, rest); err != nil {
			return err
		}
		if f.idle, err = idleCPU(ctx, m.running.pids, m.idle); err != nil {
			return err
		}
	}
	f.resident, err = resident(m.running.pids)
	return err
}

// record has perf(1) watch caracald while it is loaded, where that was asked for.
func (m *measurement) record() (stop func() error, err error) {
	if m.profile == "" || m.subject.name() != "caracald" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(m.profile, 0o755); err != nil {
		return nil, err
	}
	name := filepath.Join(m.profile, fmt.Sprintf("caracald-%d.data", m.n))
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
