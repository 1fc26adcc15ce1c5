package daemon

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/caracal-net/caracal/bfd"
	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// handoverTimeout bounds what a planned stop waits for the peers to agree to a slow pace.
const handoverTimeout = 2 * time.Second

// renewal is how long a session may take that a peer began anew: at the slow pace of RFC 5880 section 6.8.3 two packets each way.
const renewal = 3 * time.Second

// liveness finds dead paths to BGP peers (BFD) and tells the Speaker. It stands before the engine: what is asked of the Speaker is asked
// of it.
type liveness struct {
	log    *slog.Logger
	engine *engine
	bfd    *bfd.Engine
	// avoid is told the addresses of peers to whom the path is dead, before the Speaker is: routes that have another way take it. Set before Run,
	// nil for nobody.
	avoid func(...netip.Addr)
	// sessions calls back after every change of a BGP session until ctx ends; set before Run, nil for never.
	sessions func(ctx context.Context, heard func())

	mu      sync.Mutex                 // of what follows
	pending map[netip.Addr]*time.Timer // sessions that must come up again
	dead    map[netip.Addr]time.Time   // paths, and since when
	// heard is called after every change; set before Run, nil for nobody.
	heard func()
}

// newLiveness continues the sessions a former process has handed over beside the socket.
func newLiveness(log *slog.Logger, e *engine, socket string) *liveness {
	l := &liveness{log: log, engine: e, pending: map[netip.Addr]*time.Timer{}, dead: map[netip.Addr]time.Time{}}
	l.bfd = bfd.New(bfd.Options{Log: log, State: filepath.Join(filepath.Dir(socket), "bfd.json"), Changed: l.changed})
	return l
}

// String names the task.
func (l *liveness) String() string { return "BFD" }

// Set asks for a configuration, or for none; see engine.Set.
func (l *liveness) Set(cfg *bgp.Config) {
	var peers []bfd.Peer
	if cfg != nil {
		for i := range cfg.Peers {
			if p := &cfg.Peers[i]; p.BFD.Multiplier != 0 && p.Held == "" {
				peers = append(peers, bfd.Peer{Addr: p.Addr, Local: localFor(p), Multihop: p.BFD.Hops == cluster.BFDMulti,
					Timing: bfd.Timing{MinTx: p.BFD.Interval, MinRx: p.BFD.Interval, Multiplier: p.BFD.Multiplier}})
			}
		}
	}
	l.mark(func() {
		maps.DeleteFunc(l.dead, func(a netip.Addr, _ time.Time) bool {
			return !slices.ContainsFunc(peers, func(p bfd.Peer) bool { return p.Addr == a })
		})
	})
	if err := l.bfd.Set(peers); err != nil {
		l.log.Error("BFD sessions stay as they were", logErr, err)
	}
	l.engine.Set(cfg)
}

// localFor is the source of the session's packets, which a peer knows us by. A link-local peer is reached from the interface's own.
func localFor(p *bgp.Peer) netip.Addr {
	if p.Addr.IsLinkLocalUnicast() {
		return netip.Addr{}
	}
	return p.LocalAddr
}

// Run is the task. At its end the sessions are handed over to the next process.
func (l *liveness) Run(ctx context.Context) error {
	if l.sessions != nil {
		l.sessions(ctx, func() {
			if l.avoids() {
				l.revive(l.engine.Peers())
			}
		})
	}
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.Background(), handoverTimeout)
	defer cancel()
	return l.bfd.Handover(bounded)
}

func (l *liveness) avoids() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.dead) > 0
}

// revive takes paths for alive over which a BGP session has come up since they died: without BFD, which its peer may not speak any more.
func (l *liveness) revive(peers []bgp.PeerStatus) {
	up := map[netip.Addr]time.Time{}
	for _, p := range peers {
		if p.State == bgp.Established {
			up[p.Addr] = p.Since
		}
	}
	l.mark(func() {
		maps.DeleteFunc(l.dead, func(a netip.Addr, died time.Time) bool { return up[a].After(died) })
	})
}

// changed is called for every session that enters or leaves Up, from one goroutine. One that the peer ended by will says nothing of the
// path. One that the peer began anew, as FRR does when the BGP session with us comes up, must be up again soon, for a packet has just come.
func (l *liveness) changed(c bfd.Change) {
	if l.heard != nil {
		defer l.heard()
	}
	lost := c.From == bfd.Up && !c.ByWill
	l.mark(func() {
		if t := l.pending[c.Addr]; t != nil {
			t.Stop()
			delete(l.pending, c.Addr)
		}
		switch {
		case !lost:
			delete(l.dead, c.Addr)
		case c.Renewed:
			l.await(c)
		default:
			l.dead[c.Addr] = time.Now()
		}
	})
	if lost && !c.Renewed {
		l.end(c)
	}
}

// await gives a session that began anew its time. It is called with the lock held.
func (l *liveness) await(c bfd.Change) {
	var t *time.Timer
	t = time.AfterFunc(renewal, func() {
		over := false
		l.mark(func() {
			if over = l.pending[c.Addr] == t; over { // nothing was heard meanwhile, not even while this began
				delete(l.pending, c.Addr)
				l.dead[c.Addr] = time.Now()
			}
		})
		if over {
			l.end(c)
		}
	})
	l.pending[c.Addr] = t
}

// end ends the BGP session over a dead path.
func (l *liveness) end(c bfd.Change) {
	ctx, cancel := context.WithTimeout(context.Background(), handoverTimeout)
	defer cancel()
	if err := l.engine.pathDown(ctx, c.Addr, c.Resumable); err != nil {
		l.log.Error("a dead path stays in use until BGP notices", logErr, err)
	}
}

// mark changes which paths are dead, and passes it on if that changes them.
func (l *liveness) mark(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.dead)
	change() // which only adds or only removes
	if len(l.dead) != before && l.avoid != nil {
		l.avoid(slices.Collect(maps.Keys(l.dead))...)
	}
}

// status returns every session by the peer's address.
func (l *liveness) status() map[netip.Addr]bfd.Status {
	all := l.bfd.Status()
	out := make(map[netip.Addr]bfd.Status, len(all))
	for _, s := range all {
		out[s.Addr] = s
	}
	return out
}
