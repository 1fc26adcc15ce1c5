package gobgp

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/bgp"
)

// overlap is how long a session with a node of the cluster goes on that is wanted no more, where what replaces it does not come. It is the time
// for which a peer keeps the routes of one that restarts, so neither side's patience is longer than the other's.
const overlap = bgp.DefaultRestartTime

// outgoing says of a session that goes on only until its replacement is there.
const outgoing = ", replaced: goes on until its routes have come another way"

// withOutgoing adds to a Config the sessions that it has no more and that are to go on for a while (make before break): those with nodes that are
// still in the cluster, until every session that is new has brought its End-of-RIB and every prefix that is in use because of them is known from
// another peer. The reflector's End-of-RIB alone would not do: it may have been sent before the other clients had told the reflector theirs.
func (s *Speaker) withOutgoing(cfg bgp.Config) bgp.Config {
	wanted := make(map[netip.Addr]bool, len(cfg.Peers)) // true: the session is begun anew
	named := make(map[netip.Addr]bool, len(cfg.Peers))
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		named[p.Addr] = true
		if p.Held == "" {
			was, had := s.peers[p.Addr]
			wanted[p.Addr] = !had || len(bgp.Resets(&was, p)) > 0
		}
	}
	now := time.Now()
	for a, p := range s.peers {
		if _, found := slices.BinarySearchFunc(cfg.Nodes, a, netip.Addr.Compare); named[a] || !found || s.absent(&p) {
			delete(s.outgoing, a)
		} else if s.outgoing[a].IsZero() {
			s.outgoing[a] = now.Add(s.opts.Overlap)
			time.AfterFunc(s.opts.Overlap, s.feed.kick)
		}
	}
	s.overlapping.Store(int32(len(s.outgoing)))
	if len(s.outgoing) == 0 {
		return cfg
	}
	needed := s.feed.needed(s.outgoing, wanted)
	cfg.Peers = slices.Clone(cfg.Peers)
	for a, until := range s.outgoing {
		if !needed[a] || !now.Before(until) {
			delete(s.outgoing, a)
			continue
		}
		p := s.peers[a]
		p.Source = strings.TrimSuffix(p.Source, outgoing) + outgoing
		cfg.Peers = append(cfg.Peers, p)
	}
	s.overlapping.Store(int32(len(s.outgoing)))
	slices.SortFunc(cfg.Peers, func(a, b bgp.Peer) int { return strings.Compare(a.Name, b.Name) })
	return cfg
}

// review ends the outgoing sessions that have been replaced. It runs after whatever was learned has been delivered; an Apply that is under way wakes
// us when it is done.
func (s *Speaker) review(ctx context.Context) {
	if s.overlapping.Load() == 0 || !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if s.stopped || s.srv == nil {
		return
	}
	before := len(s.outgoing)
	full := s.withOutgoing(s.asked)
	if len(s.outgoing) == before {
		return
	}
	if err := s.sync(ctx, full); err != nil {
		s.opts.Log.Warn("end BGP sessions that have been replaced", keyError, err)
	}
}

// needed returns which of the outgoing sessions are still of use. wanted are the sessions asked for, true for those that are about to begin.
func (f *feed) needed(leaving map[netip.Addr]time.Time, wanted map[netip.Addr]bool) map[netip.Addr]bool {
	if len(leaving) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	pending := f.pending(wanted)
	out := make(map[netip.Addr]bool, len(leaving))
	for a := range leaving {
		s := f.sessions[a]
		out[a] = pending[index(a)] && s != nil && (s.state == stateEstablished || s.restarting)
	}
	for _, d := range f.table.All() {
		if !slices.ContainsFunc(d.paths, func(p bgp.Path) bool { return !p.Stale && leaving[p.PeerAddr].IsZero() }) {
			for i := range d.paths {
				if a := d.paths[i].PeerAddr; !leaving[a].IsZero() {
					out[a] = true
				}
			}
		}
	}
	return out
}

// pending reports, by family, whether a session that is new has not brought its routes yet: one that has never been up or is just up, or one of those
// asked for that is about to begin.
func (f *feed) pending(wanted map[netip.Addr]bool) (out [2]bool) {
	now := time.Now()
	for a, begins := range wanted {
		out[index(a)] = out[index(a)] || begins
	}
	for a, s := range f.sessions {
		_, asked := wanted[a]
		if (asked || wanted == nil && s.peer.Held == "") && (s.ups == 0 || s.state == stateEstablished && !s.heard(now)) {
			out[index(a)] = true
		}
	}
	return out
}

func index(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// parting returns the sessions that end when only the wanted ones are left and that end as a crash would end them: those with nodes of the cluster.
// The other side may hear of the change later than we do, and keeps our routes for the restart time. Those that return with other settings keep
// theirs here, too, until their End-of-RIB; not those that may lead to somebody else.
func (s *Speaker) parting(wanted map[netip.Addr]bgp.Peer) (ending, returning map[netip.Addr]struct{}) {
	ending, returning = make(map[netip.Addr]struct{}), make(map[netip.Addr]struct{})
	for a, was := range s.peers {
		now, ok := wanted[a]
		_, node := slices.BinarySearchFunc(s.asked.Nodes, a, netip.Addr.Compare)
		switch {
		case s.absent(&was) || !node || ok && len(bgp.Resets(&was, &now)) == 0:
		case !ok:
			ending[a] = struct{}{}
		case now.Held == "" && now.ASN == was.ASN && now.LocalASN == was.LocalASN && now.Password == was.Password:
			ending[a], returning[a] = struct{}{}, struct{}{}
		}
	}
	return ending, returning
}

// part ends sessions that way, as far as that is done before the server is told, and says which return.
func (s *Speaker) part(wanted map[netip.Addr]bgp.Peer) (returning map[netip.Addr]struct{}) {
	ending, returning := s.parting(wanted)
	if len(ending) == 0 {
		return returning
	}
	for a := range returning {
		s.feed.hold(a, s.opts.Overlap)
	}
	s.sockets(ending, func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
	return returning
}
