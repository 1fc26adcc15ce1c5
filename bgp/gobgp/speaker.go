package gobgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/caracal-net/caracal/bgp"
)

// Options are what a Speaker is made of.
type Options struct {
	Log    *slog.Logger // nil = none
	Events bgp.Events   // nil functions are not called
	// Restarting: a former process of this node may have left routes in the kernel and at the peers, which must be kept until the
	// sessions are back. It is what a daemon sets always, except when it knows better.
	Restarting bool
	// SyncTimeout bounds the wait for End-of-RIB from all peers; 0 = 120 s, the restart time peers give us.
	SyncTimeout time.Duration
	// SendHold is how long a peer may take nothing of what is sent to it; 0 = eight minutes.
	SendHold time.Duration
	// LimitPause is how long a peer is left alone that has sent more than Peer.MaxPrefixes; 0 = five minutes.
	LimitPause time.Duration
	// Overlap is how long a session with a node of the cluster goes on at most for what replaces it to come; 0 = 120 s, the restart time.
	Overlap time.Duration
	// Reflecting is how long such a session goes on as a client's that is to be none any more; 0 = 10 s and 50 ms for each
	// other node.
	Reflecting time.Duration
}

// Speaker is a GoBGP server made to follow a bgp.Config. It implements bgp.Speaker.
type Speaker struct {
	opts Options
	feed *feed

	mu        sync.Mutex // one Apply or Stop at a time; guards what follows
	srv       *server.BgpServer
	unwatch   context.CancelFunc
	cfg       bgp.Config
	originate map[netip.Prefix]bgp.Origination
	peers     map[netip.Addr]bgp.Peer
	limited   map[netip.Addr]*time.Timer // peers that are out of the server for having sent too much, until it fires
	retryAt   map[netip.Addr]time.Time   // when that is
	overlaps  overlaps
	policy    policies
	stopped   bool

	ctx    context.Context // of the goroutine deliver
	cancel context.CancelFunc
	done   sync.WaitGroup

	counts counts
	bounds bounds
}

var _ bgp.Speaker = (*Speaker)(nil)

// New returns a Speaker that opens nothing before the first Apply.
func New(opts Options) (*Speaker, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.SyncTimeout == 0 {
		opts.SyncTimeout = bgp.DefaultRestartTime
	}
	if opts.SendHold == 0 {
		opts.SendHold = sendHold
	}
	if opts.Overlap == 0 {
		opts.Overlap = overlap
	}
	if opts.LimitPause == 0 {
		opts.LimitPause = limitPause
	}
	s := &Speaker{opts: opts, feed: newFeed(opts.Log)}
	s.feed.restarts = opts.Restarting
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.done.Go(func() { s.deliver(s.ctx) })
	s.done.Go(func() { s.lookAfter(s.ctx) })
	return s, nil
}

// ErrStopped is returned by Apply after Stop.
var ErrStopped = errors.New("the BGP speaker has been stopped")

// Apply makes the server what cfg says; see bgp.Speaker. After an error it holds whatever could be done, and the
// next Apply goes on from there.
func (s *Speaker) Apply(ctx context.Context, cfg bgp.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrStopped
	}
	if err := check(&cfg); err != nil {
		return fmt.Errorf("apply BGP configuration: %w", err)
	}
	if s.srv != nil && needsRestart(&s.cfg, &cfg) {
		s.opts.Log.Info("BGP server restarts", keyASN, cfg.ASN, keyRouterID, cfg.RouterID, keyPort, cfg.ListenPort)
		s.hangUp(ctx)
		s.feed.retain()
		s.halt(ctx, true)
	}
	if s.srv == nil {
		if err := s.start(ctx, cfg); err != nil {
			return err
		}
	}
	s.overlaps.asking(&cfg)
	return s.sync(ctx, s.overlapped())
}

// sync makes a server that runs what cfg says.
func (s *Speaker) sync(ctx context.Context, cfg bgp.Config) error {
	s.feed.roles(&cfg)
	defer s.feed.rule(false)
	if err := s.syncPolicy(ctx, &cfg); err != nil {
		return err // nothing may be sent or accepted by other rules than these
	}
	errs := []error{s.announce(cfg.Originate), s.syncPeers(ctx, cfg.Peers), s.withdraw(cfg.Originate), s.refresh(ctx, &s.cfg, &cfg)}
	s.cfg = cfg
	s.cfg.Peers, s.cfg.Originate = slices.Clone(cfg.Peers), slices.Clone(cfg.Originate) // the next Apply is compared with this one
	s.feed.configured(s.opts.SyncTimeout)
	return errors.Join(errs...)
}

// check refuses what GoBGP would refuse late or in odd words.
func check(cfg *bgp.Config) error {
	switch {
	case cfg.ASN == 0:
		return errors.New("our AS is not known: the node is not in the datastore, or BGPConfiguration has no asNumber")
	case !cfg.RouterID.Is4() || cfg.RouterID.IsUnspecified():
		return fmt.Errorf("router id %v is not an IPv4 address", cfg.RouterID)
	}
	seen := make(map[netip.Addr]string, len(cfg.Peers))
	for _, p := range cfg.Peers {
		if !p.Addr.IsValid() {
			return fmt.Errorf("peer %s has no address", p.Name)
		}
		if other, twice := seen[p.Addr]; twice {
			return fmt.Errorf("peers %s and %s have one address, %s: only one session with it is possible", other, p.Name, p.Addr)
		}
		seen[p.Addr] = p.Name
	}
	return nil
}

// needsRestart reports whether a change can only be made by a new server.
func needsRestart(a, b *bgp.Config) bool {
	return a.ASN != b.ASN || a.RouterID != b.RouterID || a.ListenPort != b.ListenPort || !slices.Equal(a.ListenAddrs, b.ListenAddrs)
}

// start brings up a server without peers.
func (s *Speaker) start(ctx context.Context, cfg bgp.Config) error {
	srv := server.NewBgpServer(server.LoggerOption(slog.New(&logAdapter{feed: s.feed, out: s.opts.Log}), nil))
	go srv.Serve()
	if err := srv.StartBgp(ctx, &api.StartBgpRequest{Global: global(&cfg)}); err != nil {
		srv.Stop()
		return listenError(&cfg, err)
	}
	watch, unwatch := context.WithCancel(context.Background())
	gen := s.feed.begin()
	if err := s.watch(watch, srv, gen); err != nil {
		unwatch()
		srv.Stop()
		return fmt.Errorf("watch BGP events: %w", err)
	}
	s.srv, s.unwatch = srv, unwatch
	s.cfg = bgp.Config{ASN: cfg.ASN, RouterID: cfg.RouterID, ListenPort: cfg.ListenPort, ListenAddrs: cfg.ListenAddrs}
	s.answerFromNear()
	s.originate = make(map[netip.Prefix]bgp.Origination)
	s.peers = make(map[netip.Addr]bgp.Peer)
	s.limited, s.retryAt = make(map[netip.Addr]*time.Timer), make(map[netip.Addr]time.Time)
	s.overlaps.none()
	s.policy.program, s.policy.learned, s.policy.refusing = nil, nil, nil
	return nil
}

// listenError says what to do about a port that is taken or forbidden.
func listenError(cfg *bgp.Config, err error) error {
	port := listenPort(cfg)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen for BGP on port %d: another program has it, perhaps BIRD: stop that one, or set BGPConfiguration listenPort, or bindMode NodeIP if it uses another address: %w", port, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen for BGP on port %d: run as root or with CAP_NET_BIND_SERVICE, or set BGPConfiguration listenPort above 1023: %w", port, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen for BGP on port %d: bindMode is NodeIP, but this host does not have the node's address: %w", port, err)
	}
	return fmt.Errorf("listen for BGP on port %d: %w", port, err)
}

// Stop ends the server; see bgp.Speaker. No event is delivered after it has returned without an error.
func (s *Speaker) Stop(ctx context.Context, graceful bool) error {
	s.end(ctx, graceful)
	done := make(chan struct{})
	go func() { s.done.Wait(); close(done) }() // not under the lock: an event may be asking for Peers
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop BGP speaker: an event is still being handled: %w", ctx.Err())
	}
}

func (s *Speaker) end(ctx context.Context, graceful bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.stopped = true
	s.cancel() // first, so that what the end of the sessions does to the table is not reported
	s.feed.close()
	s.halt(ctx, graceful)
}

// halt ends the server and leaves the feed as it is.
func (s *Speaker) halt(ctx context.Context, graceful bool) {
	if s.srv == nil {
		return
	}
	for a := range s.limited {
		s.forgive(a)
	}
	if graceful {
		s.hangUp(ctx)
	} else {
		s.sayGoodbye(ctx)
	}
	s.unwatch()
	if err := s.srv.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: graceful}); err != nil {
		s.opts.Log.Warn("BGP server did not stop cleanly", keyError, err)
	}
	s.srv.Stop() // the BFD half, which StopBgp leaves running
	s.srv = nil
}

// announceChunk is how many paths go to the server in one call, which holds its one lock meanwhile.
const announceChunk = 1024

// announce adds what is new or changed among the originations.
func (s *Speaker) announce(want []bgp.Origination) error {
	var errs []error
	var paths []*apiutil.Path
	var batch []bgp.Origination
	flush := func() {
		if len(paths) == 0 {
			return
		}
		if _, err := s.srv.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
			errs = append(errs, fmt.Errorf("announce %s and %d more: %w", batch[0].Prefix, len(batch)-1, err))
		} else {
			for _, o := range batch {
				s.originate[o.Prefix] = o
			}
		}
		paths, batch = nil, nil
	}
	for _, o := range want {
		if was, ok := s.originate[o.Prefix]; ok && was.LocalPref == o.LocalPref {
			s.originate[o.Prefix] = o // the source may have changed
			continue
		}
		path, err := originated(o)
		if err != nil {
			errs = append(errs, fmt.Errorf("announce %s: %w", o.Prefix, err))
			continue
		}
		paths, batch = append(paths, path), append(batch, o)
		if len(paths) == announceChunk {
			flush()
		}
	}
	flush()
	return errors.Join(errs...)
}

// withdraw takes back the originations that are wanted no more.
func (s *Speaker) withdraw(want []bgp.Origination) error {
	wanted := make(map[netip.Prefix]struct{}, len(want))
	for _, o := range want {
		wanted[o.Prefix] = struct{}{}
	}
	var paths []*apiutil.Path
	for p, o := range s.originate {
		if _, ok := wanted[p]; ok {
			continue
		}
		path, err := originated(o)
		if err != nil {
			continue // was never announced
		}
		paths = append(paths, path)
	}
	for chunk := range slices.Chunk(paths, announceChunk) {
		if err := s.srv.DeletePath(apiutil.DeletePathRequest{Paths: chunk}); err != nil {
			return fmt.Errorf("withdraw %d prefixes: %w", len(chunk), err)
		}
		for _, p := range chunk {
			delete(s.originate, prefixOf(p.Nlri))
		}
	}
	return nil
}

// syncPeers removes the sessions that are gone or changed, then adds the new ones. A session of which only the description
// changed is not touched.
func (s *Speaker) syncPeers(ctx context.Context, want []bgp.Peer) error {
	var errs []error
	wanted := make(map[netip.Addr]bgp.Peer, len(want))
	for _, p := range want {
		wanted[p.Addr] = p
	}
	kept := s.part(wanted)
	for addr, was := range s.peers {
		if now, ok := wanted[addr]; ok && len(bgp.Resets(&was, &now)) == 0 {
			continue
		}
		if err := s.removePeer(ctx, &was); err != nil {
			errs = append(errs, fmt.Errorf("remove BGP peer %s: %w", was.Name, err))
			continue
		}
		delete(s.peers, addr)
		s.feed.remove(addr)
		if _, still := kept[addr]; !still {
			s.feed.drop(addr)
		}
	}
	for _, p := range want {
		if _, ok := s.peers[p.Addr]; ok {
			s.peers[p.Addr] = p
			s.feed.rename(p)
			continue
		}
		errs = append(errs, s.addPeer(ctx, &p))
	}
	return errors.Join(errs...)
}

func (s *Speaker) addPeer(ctx context.Context, p *bgp.Peer) error {
	s.feed.add(*p)
	if p.Held != "" {
		s.opts.Log.Warn("BGP session is held down", keyPeer, p.Name, keyAddress, p.Addr, keyError, p.Held)
	} else if err := s.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: s.peer(p)}); err != nil {
		s.feed.remove(p.Addr)
		return fmt.Errorf("add BGP peer %s: %w", p.Name, err)
	}
	s.peers[p.Addr] = *p
	return nil
}

// PathDown ends a session over a dead path; see bgp.Speaker. A session that is up is taken down by hand and put up again, which makes
// GoBGP drop the peer's paths whatever graceful restart has agreed upon. Those of a peer that is restarting go only with the peer.
func (s *Speaker) PathDown(ctx context.Context, peer netip.Addr, controlPlane bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[peer]
	restarting := s.feed.isRestarting(peer)
	if !ok || s.srv == nil || s.absent(&p) || controlPlane && restarting {
		return nil
	}
	s.feed.lost(peer, pathDead)
	s.feed.dead(peer)
	if restarting {
		if err := s.removePeer(ctx, &p); err != nil {
			return fmt.Errorf("drop the routes of %s, whose path is dead: %w", p.Name, err)
		}
		delete(s.peers, peer)
		s.feed.remove(peer)
		return s.addPeer(ctx, &p)
	}
	if err := s.srv.DisablePeer(ctx, &api.DisablePeerRequest{Address: peer.String(), Communication: pathDead}); err != nil {
		return fmt.Errorf("end the BGP session with %s over a dead path: %w", p.Name, err)
	}
	if err := s.srv.EnablePeer(ctx, &api.EnablePeerRequest{Address: peer.String()}); err != nil {
		return fmt.Errorf("try the BGP session with %s again: %w", p.Name, err)
	}
	return nil
}

// pathDead is said to the peer (RFC 9003) and shown of the session.
const pathDead = "BFD: the path is down"

// removePeer ends a session. DeletePeer leaves the password on the listening sockets, where it would keep the same address from
// ever connecting without one; UpdatePeer takes it away. The peer is down between the two.
func (s *Speaker) removePeer(ctx context.Context, p *bgp.Peer) error {
	if s.absent(p) {
		s.forgive(p.Addr)
		return nil // is not there
	}
	if p.Password != "" {
		bare := *p
		bare.Password = ""
		conf := s.peer(&bare)
		conf.Conf.AdminDown = true
		if _, err := s.srv.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: conf}); err != nil {
			return fmt.Errorf("take the password off: %w", err)
		}
	}
	return s.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Addr.String()})
}
