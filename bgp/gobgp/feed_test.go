package gobgp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

var peerAddr = netip.MustParseAddr("192.0.2.12")

func testNews(routerID string, id uint32, withdraw bool) *apiutil.Path {
	nlri, err := gobgp.NewIPAddrPrefix(netip.MustParsePrefix("10.1.0.0/26"))
	if err != nil {
		panic(err)
	}
	return &apiutil.Path{Nlri: nlri, Withdrawal: withdraw, PeerAddress: peerAddr, PeerID: netip.MustParseAddr(routerID), RemoteID: id,
		Attrs: []gobgp.PathAttributeInterface{gobgp.NewPathAttributeLocalPref(id)}}
}

// TestFeedRouterID: a peer that came back with another router id is one peer. What GoBGP says of its former self does not count.
func TestFeedRouterID(t *testing.T) {
	f := newFeed(slog.New(slog.DiscardHandler))
	gen := f.begin()
	f.learn(gen, []*apiutil.Path{testNews("10.0.0.1", 0, false), testNews("10.0.0.2", 0, false), testNews("10.0.0.1", 0, true)}, time.Now())
	if b := f.take(); len(b.learned) != 1 || len(b.learned[0].Paths) != 1 {
		t.Fatalf("%+v", b)
	}
	f.learn(gen, []*apiutil.Path{testNews("10.0.0.2", 7, false)}, time.Now()) // a second path of it, by add-path
	if b := f.take(); len(b.learned) != 1 || len(b.learned[0].Paths) != 2 {
		t.Fatalf("%+v", b)
	}
	f.learn(gen, []*apiutil.Path{testNews("10.0.0.2", 0, true), testNews("10.0.0.2", 7, true)}, time.Now())
	if b := f.take(); len(b.learned) != 1 || len(b.learned[0].Paths) != 0 || f.table.Len() != 0 {
		t.Fatalf("%+v, %d left in the table", b, f.table.Len())
	}
}

// TestFeedNeverWritesToWhatItHandedOut: a consumer keeps the slices it was given.
func TestFeedNeverWritesToWhatItHandedOut(t *testing.T) {
	f := newFeed(slog.New(slog.DiscardHandler))
	gen := f.begin()
	f.learn(gen, []*apiutil.Path{testNews("10.0.0.1", 1, false), testNews("10.0.0.1", 2, false)}, time.Now())
	for what, do := range map[string]func(){
		"stale":    func() { f.stale(peerAddr, true) },
		"withdraw": func() { f.learn(gen, []*apiutil.Path{testNews("10.0.0.1", 2, true)}, time.Now()) },
		"replace":  func() { f.learn(gen, []*apiutil.Path{testNews("10.0.0.1", 1, false)}, time.Now()) },
	} {
		f.stale(peerAddr, false)
		f.learn(gen, []*apiutil.Path{testNews("10.0.0.1", 1, false), testNews("10.0.0.1", 2, false)}, time.Now())
		paths := f.take().learned[0].Paths
		was := fmt.Sprint(paths)
		do()
		if now := fmt.Sprint(paths); now != was {
			t.Errorf("%s: was %s, is %s", what, was, now)
		}
	}
}

// TestAStreamIsDeliveredInPortions: what comes alone is delivered at once, what comes without end is gathered, and nothing is lost.
func TestAStreamIsDeliveredInPortions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deliveries, prefixes := 0, 0
		s := &Speaker{feed: newFeed(slog.New(slog.DiscardHandler))}
		s.opts.Events.Learned = func(l []bgp.Learned) {
			deliveries++
			prefixes += len(l)
		}
		gen := s.feed.begin()
		go s.deliver(t.Context())
		const stream, pace = 1000, gather / 20
		for i := range stream {
			n := testNews("10.0.0.1", 0, false)
			n.Nlri, _ = gobgp.NewIPAddrPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32))
			s.feed.learn(gen, []*apiutil.Path{n}, time.Now())
			synctest.Wait()
			if i == 0 && deliveries != 1 {
				t.Fatalf("the first path was not delivered at once: %d deliveries", deliveries)
			}
			time.Sleep(pace)
		}
		time.Sleep(2 * gather)
		synctest.Wait()
		if prefixes != stream {
			t.Errorf("%d prefixes delivered of %d", prefixes, stream)
		}
		if most := int(stream*pace/gather) + 2; deliveries > most {
			t.Errorf("%d deliveries in %v, want one in %v", deliveries, stream*pace, gather)
		}
	})
}

// TestFeedSharesPaths: prefixes of one UPDATE share one list of paths, when it turns stale too, and one that changes leaves the others alone.
func TestFeedSharesPaths(t *testing.T) {
	f := newFeed(slog.New(slog.DiscardHandler))
	gen := f.begin()
	update := func(pref uint32, n int) (list []*apiutil.Path) {
		attr := gobgp.NewPathAttributeLocalPref(pref)
		for i := range n {
			p := testNews("10.0.0.1", 0, false)
			p.Nlri, _ = gobgp.NewIPAddrPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 32))
			p.Attrs = []gobgp.PathAttributeInterface{attr}
			list = append(list, p)
		}
		return list
	}
	shared := func(what string, b batch, want int, stale bool) {
		t.Helper()
		lists := map[*bgp.Path]int{}
		for _, l := range b.learned {
			if len(l.Paths) != 1 || l.Paths[0].Stale != stale || l.Paths[0].Prefix.IsValid() {
				t.Fatalf("%s: %+v", what, l)
			}
			lists[&l.Paths[0]]++
		}
		if len(b.learned) != want || len(lists) != 1 {
			t.Errorf("%s: %d prefixes with %d lists of paths, want %d with one", what, len(b.learned), len(lists), want)
		}
	}
	f.learn(gen, update(7, 100), time.Now())
	shared("learned", f.take(), 100, false)
	f.stale(peerAddr, true)
	shared("stale", f.take(), 100, true)
	f.stale(peerAddr, false)
	shared("fresh again", f.take(), 100, false)
	f.learn(gen, update(8, 1), time.Now())
	if b := f.take(); len(b.learned) != 1 || b.learned[0].Paths[0].LocalPref != 8 {
		t.Errorf("changed: %+v", b)
	}
	f.each(func(p netip.Prefix, paths []bgp.Path) {
		if want := map[bool]uint32{true: 8, false: 7}[p.Addr().As4()[3] == 0]; paths[0].LocalPref != want {
			t.Errorf("%v has LOCAL_PREF %d, want %d", p, paths[0].LocalPref, want)
		}
	})
	f.retain()
	if b := f.take(); len(b.learned) != 100 || !b.learned[0].Paths[0].Stale {
		t.Errorf("retained: %d prefixes", len(b.learned))
	}
}

// TestFeedSharesAttributes: prefixes of one UPDATE share what is read from its attributes, and keep next hops of their own where those come
// with the prefix.
func TestFeedSharesAttributes(t *testing.T) {
	asPath := gobgp.NewPathAttributeAsPath([]gobgp.AsPathParamInterface{gobgp.NewAs4PathParam(gobgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65001, 65002})})
	var seen attributes
	read := func(prefix, nextHop string, attrs ...gobgp.PathAttributeInterface) bgp.Path {
		nlri, err := gobgp.NewIPAddrPrefix(netip.MustParsePrefix(prefix))
		if err != nil {
			t.Fatal(err)
		}
		reach, err := gobgp.NewPathAttributeMpReachNLRI(gobgp.RF_IPv6_UC, []gobgp.PathNLRI{{NLRI: nlri}}, netip.MustParseAddr(nextHop))
		if err != nil {
			t.Fatal(err)
		}
		var p bgp.Path
		seen.fill(&p, append(attrs, reach))
		return p
	}
	a, b := read("fd00::/64", "2001:db8::1", asPath), read("fd01::/64", "2001:db8::2", asPath)
	if len(a.ASPath) != 2 || len(b.ASPath) != 2 || &a.ASPath[0] != &b.ASPath[0] {
		t.Errorf("AS paths %v and %v are not one", a.ASPath, b.ASPath)
	}
	if a.NextHop.String() != "2001:db8::1" || b.NextHop.String() != "2001:db8::2" {
		t.Errorf("next hops %v and %v", a.NextHop, b.NextHop)
	}
	c := read("fd02::/64", "2001:db8::1", asPath, gobgp.NewPathAttributeLocalPref(7))
	d := read("fd02::/64", "2001:db8::1", asPath, gobgp.NewPathAttributeLocalPref(8))
	e := read("fd02::/64", "2001:db8::1", gobgp.NewPathAttributeLocalPref(8))
	if c.LocalPref != 7 || d.LocalPref != 8 || len(d.ASPath) != 2 || len(e.ASPath) != 0 || a.LocalPref != 100 {
		t.Errorf("after other attributes: %+v, %+v and %+v", c, d, e)
	}
}

// TestFeedOldServer: news of a server that has been replaced are not heard, and what it had learned stays until the new one is in sync.
func TestFeedOldServer(t *testing.T) {
	f := newFeed(slog.New(slog.DiscardHandler))
	gen := f.begin()
	f.learn(gen, []*apiutil.Path{testNews("10.0.0.1", 1, false)}, time.Now())
	f.take()
	f.retain()
	f.learn(gen, []*apiutil.Path{testNews("10.0.0.1", 1, true)}, time.Now())
	f.begin()
	f.add(bgp.Peer{Addr: peerAddr})
	f.configured(time.Hour)
	if b := f.take(); len(b.learned) != 1 || len(b.learned[0].Paths) != 1 || !b.learned[0].Paths[0].Stale || b.inSync {
		t.Fatalf("%+v", b)
	}
	f.endOfRIB(f.gen, peerAddr, gobgp.RF_IPv4_UC)
	if b := f.take(); len(b.learned) != 1 || len(b.learned[0].Paths) != 0 || !b.inSync {
		t.Fatalf("%+v", b)
	}
	f.close()
}

// TestSettle: a peer without graceful restart counts ten seconds after its session came up, one with it only at its End-of-RIB
// or when it has not come back from a restart, and one that never comes when the time is up.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(slog.New(slog.DiscardHandler))
		gen := f.begin()
		plain, graceful := netip.MustParseAddr("192.0.2.13"), netip.MustParseAddr("192.0.2.14")
		for _, a := range []netip.Addr{plain, graceful} {
			f.add(bgp.Peer{Addr: a})
		}
		f.configured(time.Minute)
		up := func(a netip.Addr, caps ...gobgp.ParameterCapabilityInterface) {
			p := apiutil.Peer{State: apiutil.PeerState{NeighborAddress: a, SessionState: gobgp.BGP_FSM_ESTABLISHED, RemoteCap: caps}}
			f.state(gen, &p, time.Now())
		}
		up(plain)
		up(graceful, gobgp.NewCapGracefulRestart(false, false, 120, nil))
		f.endOfRIB(gen, graceful, gobgp.RF_IPv4_UC)
		if f.take().inSync {
			t.Fatal("in sync although one peer may not have sent all")
		}
		time.Sleep(settleTime)
		synctest.Wait()
		select {
		case <-f.wake:
		default:
			t.Fatal("nobody was woken")
		}
		if !f.take().inSync {
			t.Fatal("not in sync after the settle time")
		}

		gen = f.begin()
		f.told = false
		f.configured(time.Minute)
		lost := apiutil.Peer{State: apiutil.PeerState{NeighborAddress: graceful, SessionState: gobgp.BGP_FSM_IDLE, DisconnectReason: api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART}}
		f.sessions[graceful].eor = false
		f.state(gen, &lost, time.Now())
		if f.take().inSync {
			t.Fatal("in sync although a peer may come back with more")
		}
		lost.State.DisconnectReason = api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED
		f.state(gen, &lost, time.Now())
		if !f.take().inSync {
			t.Fatal("not in sync although the peer has not come back in its restart time")
		}

		f.begin()
		f.told = false
		f.add(bgp.Peer{Addr: peerAddr})
		f.configured(time.Minute)
		time.Sleep(time.Minute - time.Second)
		if f.take().inSync {
			t.Fatal("in sync before the time was up")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !f.take().inSync {
			t.Fatal("not in sync when the time is up")
		}
	})
}

// TestNotificationOf: what GoBGP logs of a NOTIFICATION, and what is read from it.
func TestNotificationOf(t *testing.T) {
	for _, c := range []struct {
		code, subcode int
		data          string
		reason        any // nil where GoBGP does not decode one
		want          string
	}{
		{6, 4, "", nil, "Cease/Administrative Reset"},
		{6, 2, "", "maintenance", `Cease/Administrative Shutdown "maintenance"`},
		{6, 2, "\x04soon", nil, `Cease/Administrative Shutdown "soon"`},
		{6, 9, "", nil, "Cease/Hard Reset"},
		{6, 9, "\x06\x02\x04soon", nil, `Cease/Hard Reset (Cease/Administrative Shutdown) "soon"`},
		{6, 9, "\x06\x03", nil, "Cease/Hard Reset (Cease/Peer De-configured)"},
		{6, 9, "\x06monday", nil, `Cease/Hard Reset "monday"`}, // as GoBGP itself sends it
		{6, 9, "\x09soon", nil, "Cease/Hard Reset"},            // the length is wrong
		{6, 2, "", "a\nb\x1b[31m\xff", `Cease/Administrative Shutdown "a b [31m?"`},
		{2, 2, "\x02\x02", nil, "OPEN Message Error/Bad Peer AS"},
	} {
		r := slog.NewRecord(time.Now(), slog.LevelInfo, msgReceived, 0)
		r.AddAttrs(slog.Int(attrCode, c.code), slog.Int(attrSubcode, c.subcode), slog.Any(attrData, []byte(c.data)))
		if c.reason != nil {
			r.AddAttrs(slog.Any(attrReason, c.reason))
		}
		if got := notificationOf(r).String(); got != c.want {
			t.Errorf("%d/%d %q: %s, want %s", c.code, c.subcode, c.data, got, c.want)
		}
	}
}

func TestListenError(t *testing.T) {
	for _, errno := range []error{syscall.EADDRINUSE, syscall.EACCES, syscall.EADDRNOTAVAIL, syscall.EINVAL} {
		err := listenError(&bgp.Config{}, errno)
		if !errors.Is(err, errno) {
			t.Errorf("%v is lost in %v", errno, err)
		}
	}
}

// TestTellAgainLater: after a restart of ours a peer is told nothing twice before all have brought what they had, or GoBGP no longer waits for them: it would be
// told End-of-RIB too soon. Without a restart it is told a second after it came up.
func TestTellAgainLater(t *testing.T) {
	for _, c := range []struct {
		name     string
		restarts bool
		endOfRIB bool
		after    time.Duration
	}{{"no restart", false, false, againTime}, {"restart", true, false, holdBack}, {"restart, all heard", true, true, againTime}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(slog.New(slog.DiscardHandler))
				f.restarts = c.restarts
				gen := f.begin()
				f.add(bgp.Peer{Addr: peerAddr})
				f.configured(time.Hour)
				p := apiutil.Peer{State: apiutil.PeerState{NeighborAddress: peerAddr, SessionState: gobgp.BGP_FSM_ESTABLISHED,
					RemoteCap: []gobgp.ParameterCapabilityInterface{gobgp.NewCapGracefulRestart(false, false, 120, nil)}}}
				f.state(gen, &p, time.Now())
				f.learn(gen, []*apiutil.Path{testNews("192.0.2.9", 100, false)}, time.Now())
				if c.endOfRIB {
					f.endOfRIB(gen, peerAddr, gobgp.RF_IPv4_UC)
				}
				time.Sleep(c.after - time.Millisecond)
				synctest.Wait()
				if again := f.take().again; len(again) != 0 {
					t.Fatal("too soon")
				}
				if c.restarts && !c.endOfRIB && !f.laterAgain(peerAddr) {
					t.Fatal("rules would be applied too soon")
				}
				<-f.wake // whatever was before
				time.Sleep(time.Millisecond)
				synctest.Wait()
				select {
				case <-f.wake:
				default:
					t.Fatal("nobody was woken")
				}
				if again := f.take().again; len(again) != 1 || again[0] != peerAddr {
					t.Fatal("told again:", again)
				}
				f.close()
			})
		})
	}
}

// TestKeptUntil: the paths of a peer that is gone are kept for the restart time that the peer has asked for, not for ours.
func TestKeptUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(slog.New(slog.DiscardHandler))
		gen := f.begin()
		f.add(bgp.Peer{Addr: peerAddr, RestartTime: 2 * time.Minute})
		caps := []gobgp.ParameterCapabilityInterface{gobgp.NewCapGracefulRestart(false, false, 30, []*gobgp.CapGracefulRestartTuple{gobgp.NewCapGracefulRestartTuple(gobgp.RF_IPv4_UC, true)})}
		state := func(s gobgp.FSMState, why api.PeerState_DisconnectReason) bgp.PeerStatus {
			f.state(gen, &apiutil.Peer{State: apiutil.PeerState{NeighborAddress: peerAddr, SessionState: s, RemoteCap: caps, DisconnectReason: why}}, time.Now())
			return f.statuses()[0]
		}
		if s := state(gobgp.BGP_FSM_ESTABLISHED, 0); !s.KeptUntil.IsZero() || !s.ErrorAt.IsZero() {
			t.Errorf("up: %+v", s)
		}
		time.Sleep(time.Hour)
		lost := time.Now()
		s := state(gobgp.BGP_FSM_IDLE, api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART)
		if !s.Restarting || !s.KeptUntil.Equal(lost.Add(30*time.Second)) || !s.ErrorAt.Equal(lost) {
			t.Errorf("restarting %t, kept until %v, failed at %v, want 30 s after %v", s.Restarting, s.KeptUntil, s.ErrorAt, lost)
		}
		time.Sleep(10 * time.Second)
		if s := state(gobgp.BGP_FSM_ACTIVE, 0); !s.KeptUntil.Equal(lost.Add(30 * time.Second)) {
			t.Errorf("kept until %v after a try, want 30 s after %v", s.KeptUntil, lost)
		}
	})
}
