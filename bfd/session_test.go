package bfd

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world is two sessions and the wire between them, in a time of its own: every event is handled at its exact moment.
type world struct {
	t     *testing.T
	rand  *rand.Rand
	now   time.Time
	ends  [2]*session
	delay time.Duration
	loss  float64    // of the packets, while the wire is whole
	cut   [2]bool    // packets from this end are lost
	wire  []inFlight // in order of arrival, for the delay is the same for all
	sent  [2]int
	last  [2]time.Time  // of the last packet that was not an answer
	check func(end int) // called after every event
	drop  func(from int, p *packet) bool
	gaps  func(time.Duration) // called with the time between two packets of an end that is up
}

type inFlight struct {
	to int
	at time.Time
	p  packet
}

func newWorld(t *testing.T, seed uint64, timings ...Timing) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), delay: time.Millisecond}
	for i, timing := range timings {
		w.ends[i] = newSession(uint32(i+1), timing, w.now)
		w.ends[i].jitter = w.rand.Float64
	}
	return w
}

// run lets time pass until done says so, and reports whether it did before the time was over.
func (w *world) run(d time.Duration, done func() bool) bool {
	end := w.now.Add(d)
	for !done() {
		next, to := end, -1
		for i, s := range w.ends {
			if at := s.wake(w.now); at.Before(next) {
				next, to = at, i
			}
		}
		arrival := len(w.wire) > 0 && !w.wire[0].at.After(next)
		if arrival {
			next = w.wire[0].at
		}
		if next.After(w.now) {
			w.now = next
		}
		switch {
		case arrival:
			f := w.wire[0]
			w.wire = w.wire[1:]
			to = f.to
			if (f.p.your == 0 || f.p.your == w.ends[to].local) && w.ends[to].receive(&f.p, w.now) {
				w.send(to, true)
			}
		case to < 0:
			return done()
		}
		w.ends[to].elapse(w.now)
		if w.ends[to].due(w.now) {
			w.send(to, false)
		}
		if w.check != nil {
			w.check(to)
		}
	}
	return true
}

func (w *world) send(from int, final bool) {
	if !final {
		if w.gaps != nil && w.ends[from].state == Up && !w.ends[from].urgent {
			w.gaps(w.now.Sub(w.last[from]))
		}
		w.last[from] = w.now
	}
	p := w.ends[from].send(final, w.now)
	w.sent[from]++
	octets := p.append(nil)
	read, err := parse(octets)
	if err != nil {
		w.t.Fatalf("an end sends what the other must discard: %v: %+v", err, p)
	}
	if !w.cut[from] && w.rand.Float64() >= w.loss && (w.drop == nil || !w.drop(from, &read)) {
		w.wire = append(w.wire, inFlight{1 - from, w.now.Add(w.delay), read})
	}
}

func (w *world) both(state State) func() bool {
	return func() bool { return w.ends[0].state == state && w.ends[1].state == state }
}

func never() bool { return false }

func (w *world) comeUp() {
	w.t.Helper()
	if !w.run(10*time.Second, func() bool {
		return w.both(Up)() && !w.ends[0].polling && !w.ends[1].polling
	}) {
		w.t.Fatalf("after 10 s: %v and %v", w.ends[0].state, w.ends[1].state)
	}
	w.run(time.Second, never) // both at their pace
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// TestDetection: a wire that is cut, both ways or one, is noticed by both ends in the time RFC 5880 section 6.8.4 gives, for any
// two timings, and they come back when it is whole again.
func TestDetection(t *testing.T) {
	timings := []Timing{DefaultTiming(), {ms(10), ms(10), 3}, {ms(300), ms(300), 3}, {ms(50), ms(200), 5}, {ms(100), ms(20), 1}, {2 * time.Second, ms(50), 2}}
	for i, a := range timings {
		for j, b := range timings {
			for cut, ends := range [][2]bool{{true, true}, {true, false}, {false, true}} {
				t.Run(fmt.Sprint(i, j, cut), func(t *testing.T) {
					w := newWorld(t, uint64(i*100+j*10+cut), a, b)
					w.comeUp()
					detection := func(rx, tx Timing) time.Duration { return time.Duration(tx.Multiplier) * max(rx.MinRx, tx.MinTx) }
					limit := max(detection(a, b), detection(b, a))
					if w.ends[0].detection() != detection(a, b) || w.ends[1].detection() != detection(b, a) {
						t.Errorf("detection times %v, %v, want %v, %v", w.ends[0].detection(), w.ends[1].detection(), detection(a, b), detection(b, a))
					}
					w.cut = ends
					if !w.run(limit+2*w.delay, w.both(Down)) && !w.both(Init)() && w.ends[0].state == Up && w.ends[1].state == Up {
						t.Fatalf("both ends are up %v after the wire was cut", limit)
					}
					w.run(limit+2*w.delay, never)
					for e, s := range w.ends {
						if s.state == Up {
							t.Errorf("end %d is up although the wire is cut", e)
						}
					}
					w.cut = [2]bool{}
					w.comeUp()
				})
			}
		}
	}
}

// TestPace: while up, packets leave at three quarters to the whole of the larger of the two intervals, below nine tenths where one
// loss is a dead path (RFC 5880 section 6.8.7); while not up, never faster than one a second (6.8.3).
func TestPace(t *testing.T) {
	for _, c := range []struct {
		a, b     Timing
		low, top time.Duration
	}{
		{DefaultTiming(), DefaultTiming(), ms(37), ms(50)},
		{Timing{ms(20), ms(20), 3}, Timing{ms(100), ms(100), 3}, ms(75), ms(100)},
		{Timing{ms(100), ms(100), 1}, Timing{ms(100), ms(100), 1}, ms(75), ms(90)},
	} {
		w := newWorld(t, 7, c.a, c.b)
		w.comeUp()
		seen, least, most := 0, time.Hour, time.Duration(0)
		w.gaps = func(d time.Duration) { seen++; least, most = min(least, d), max(most, d) }
		w.run(10*time.Second, never)
		if seen < 100 || least < c.low || most > c.top {
			t.Errorf("%v and %v: %d packets %v to %v apart, want %v to %v", c.a, c.b, seen, least, most, c.low, c.top)
		}
		w.cut = [2]bool{true, true}
		w.run(2*time.Second, never)
		w.sent = [2]int{}
		w.run(30*time.Second, never)
		for i, n := range w.sent {
			if n < 25 || n > 41 {
				t.Errorf("end %d sent %d packets in 30 s while down, want one in 750 to 1000 ms", i, n)
			}
		}
	}
}

// TestNothingIsLostByANewPace: intervals change in any way while up, under packet loss, and no session goes down for it.
func TestNothingIsLostByANewPace(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, seed, DefaultTiming(), DefaultTiming())
		w.comeUp()
		w.check = func(end int) {
			if w.ends[end].state != Up {
				t.Fatalf("seed %d: end %d is %v (%v)", seed, end, w.ends[end].state, w.ends[end].diag)
			}
		}
		for range 20 {
			end, steps := w.rand.IntN(2), []int{10, 20, 50, 100, 1000, 5000}
			pick := func() time.Duration { return ms(steps[w.rand.IntN(len(steps))]) }
			w.ends[end].setTiming(Timing{pick(), pick(), uint8(3 + w.rand.IntN(3))}, w.now)
			w.run(time.Duration(w.rand.Int64N(int64(8*time.Second))), never)
		}
	}
}

// TestOverlappingPolls: intervals change again while a poll is under way, over a wire that takes longer than a packet's interval and on which polls are
// lost, but never two packets in a row. A Final to a former poll says nothing of the values of a later one.
func TestOverlappingPolls(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(t, seed, DefaultTiming(), DefaultTiming())
		w.delay = ms(80)
		w.comeUp()
		w.check = func(end int) {
			if w.ends[end].state != Up {
				t.Fatalf("seed %d: end %d is %v (%v)", seed, end, w.ends[end].state, w.ends[end].diag)
			}
		}
		var lost [2]bool
		w.drop = func(from int, p *packet) bool {
			lost[from] = !lost[from] && p.poll && w.rand.IntN(2) == 0
			return lost[from]
		}
		for range 20 {
			end, steps := w.rand.IntN(2), []int{50, 100, 1000, 5000}
			pick := func() time.Duration { return ms(steps[w.rand.IntN(len(steps))]) }
			w.ends[end].setTiming(Timing{pick(), pick(), 4}, w.now)
			w.run(time.Duration(w.rand.Int64N(int64(ms(200)))), never)
		}
		w.run(time.Minute, never)
		if w.ends[0].polling || w.ends[1].polling {
			t.Errorf("seed %d: polls without end", seed)
		}
	}
}

// TestBadWire: under heavy loss sessions may flap, but no end stays up for longer than its detection time without hearing, and when
// the wire is good again both are up.
func TestBadWire(t *testing.T) {
	flaps := 0
	for seed := range uint64(100) {
		w := newWorld(t, seed, DefaultTiming(), Timing{ms(30), ms(80), 2})
		w.loss = 0.5
		was := [2]State{}
		w.check = func(end int) {
			s := w.ends[end]
			if was[end] == Up && s.state != Up {
				flaps++
			}
			was[end] = s.state
			if s.state == Up && (s.expires.IsZero() || w.now.After(s.expires)) {
				t.Fatalf("seed %d: end %d is up past its detection time", seed, end)
			}
		}
		w.run(20*time.Second, never)
		w.loss = 0
		w.comeUp()
	}
	if flaps == 0 {
		t.Error("no session has ever flapped: the loss was not heavy")
	}
}

// TestFarewell: an end that is shut is not taken for a dead path, and comes back when it is opened again.
func TestFarewell(t *testing.T) {
	w := newWorld(t, 1, DefaultTiming(), DefaultTiming())
	w.comeUp()
	w.ends[0].shut(w.now)
	if !w.run(ms(20), func() bool { return w.ends[1].state == Down }) {
		t.Fatal("the other end does not notice")
	}
	if w.ends[1].diag != NeighborSignaledDown || w.ends[1].remoteState != AdminDown {
		t.Errorf("the other end says %v, and that its peer is %v", w.ends[1].diag, w.ends[1].remoteState)
	}
	w.run(5*time.Second, never)
	if w.ends[1].state != Down || w.ends[0].state != AdminDown {
		t.Errorf("states %v and %v", w.ends[0].state, w.ends[1].state)
	}
	w.ends[0] = newSession(3, DefaultTiming(), w.now)
	w.comeUp()
}

// TestTakenOver: a session that was slowed down, saved and gone on with by another process never goes down, whatever its multiplier.
func TestTakenOver(t *testing.T) {
	for _, multiplier := range []uint8{1, 3, 20} {
		for _, pause := range []time.Duration{0, ms(200), 3 * time.Second, 14 * time.Second} {
			fast := Timing{ms(50), ms(50), multiplier}
			w := newWorld(t, 3, fast, DefaultTiming())
			w.comeUp()
			w.ends[0].setTiming(slow(fast), w.now)
			if !w.run(ms(300), func() bool { return w.ends[0].actualTx == slow(fast).MinTx }) {
				t.Fatal("the peer does not agree to a slow pace")
			}
			r := runner{s: w.ends[0], timing: slow(fast), line: line{source: 50000}}
			kept, ok := r.save()
			if !ok || kept.SourcePort != 50000 {
				t.Fatalf("saved: %v, %+v", ok, kept)
			}
			w.ends[0] = deaf(w.now)
			w.check = func(end int) {
				if end == 1 && w.ends[1].state != Up {
					t.Fatalf("multiplier %d, pause %v: the peer is %v", multiplier, pause, w.ends[1].state)
				}
			}
			w.run(pause, never)
			if !kept.fits(&Peer{}, kept.Uptime+pause) {
				t.Fatalf("after %v the session is given up", pause)
			}
			w.ends[0] = kept.session(fast, w.now)
			w.run(5*time.Second, never)
			if d := w.ends[1].detection(); d != time.Duration(multiplier)*ms(50) || w.ends[0].state != Up {
				t.Errorf("pause %v: the old pace is not back: detection %v, state %v", pause, d, w.ends[0].state)
			}
			if kept.fits(&Peer{}, kept.Uptime+16*time.Second) {
				t.Error("a session is gone on with although its peer has given it up")
			}
		}
	}
}

// deaf stands for a process that is away.
func deaf(now time.Time) *session {
	s := newSession(99, DefaultTiming(), now.Add(time.Hour))
	s.remoteMinRx = 0
	return s
}

// TestDemand: a peer in demand mode is sent nothing but what answers or asks (RFC 5880 section 6.6), one that wants nothing, nothing.
func TestDemand(t *testing.T) {
	now := time.Unix(0, 0)
	s := newSession(1, DefaultTiming(), now)
	hello := packet{state: Init, my: 2, your: 1, multiplier: 3, desiredMinTx: ms(50), requiredMinRx: ms(50)}
	s.receive(&hello, now)
	s.send(false, now)
	hello.state, hello.demand, hello.final = Up, true, true
	s.receive(&hello, now)
	if s.state != Up || s.polling || s.due(now.Add(time.Minute)) {
		t.Errorf("state %v, polling %v: sends though the peer demands silence", s.state, s.polling)
	}
	s.setTiming(Timing{ms(80), ms(80), 3}, now)
	if !s.due(now) {
		t.Error("no poll in demand mode")
	}
	hello.demand, hello.final, hello.requiredMinRx = false, true, 0
	s.receive(&hello, now)
	if s.due(now.Add(time.Minute)) {
		t.Error("sends to a peer that receives nothing")
	}
}

// TestRenewed: what a peer says with Down decides whether it speaks of the path.
func TestRenewed(t *testing.T) {
	for _, c := range []struct {
		state State
		diag  Diag
		want  bool
	}{
		{Down, NoDiagnostic, true},
		{Down, NeighborSignaledDown, true}, // FRR 8.4, when the BGP session comes up
		{Down, DetectionTimeExpired, false},
		{AdminDown, AdministrativelyDown, false}, // by will
	} {
		now := time.Now()
		s := newSession(7, DefaultTiming(), now)
		s.state, s.remoteState, s.remote = Up, Up, 9
		s.receive(&packet{state: c.state, diag: c.diag, my: 9, your: 7, multiplier: 3, desiredMinTx: time.Second, requiredMinRx: time.Second}, now)
		if s.state != Down || s.renewed() != c.want {
			t.Errorf("after %v %v: state %v, renewed %v, want %v", c.state, c.diag, s.state, s.renewed(), c.want)
		}
	}
}
