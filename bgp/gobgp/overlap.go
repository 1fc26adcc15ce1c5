package gobgp

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/bgp"
)

// overlap is how long a session with a node of the cluster goes on that is wanted no more, where what replaces it does not come. It is the time
// for which a peer keeps the routes of one that restarts, so neither side's patience is longer than the other's.
const overlap = bgp.DefaultRestartTime

// outgoing says of a session that goes on only until its replacement is there.
const outgoing = ", replaced: goes on until its routes have come another way"

// reflecting is how long a node goes on reflecting to, and for, another that is to be its client no more: to begin that session anew is to withdraw from
// all other clients what had come over it, so they are given time to hear it another way. They cannot tell us that they have.
const (
	reflecting     = 10 * time.Second
	reflectingEach = 50 * time.Millisecond // more for every other node
)

// clientYet says of a session that it is still a client's.
const clientYet = ", a client of ours for some seconds more"

// overlaps are the sessions that go on as they are although another Config has been asked for.
type overlaps struct {
	asked    bgp.Config               // by the last Apply
	outgoing map[netip.Addr]time.Time // sessions that are in it no more, until when at most
	left     map[netip.Addr]time.Time // those of them that the peer has ended and that are about to end here, until when what they brought is kept
	clients  map[netip.Addr]time.Time // sessions with clients that are none in it, until when at least
	count    atomic.Int32             // of both
}

// asking takes over what is asked for.
func (o *overlaps) asking(cfg *bgp.Config) {
	o.asked = *cfg
	o.asked.Peers, o.asked.Nodes = slices.Clone(cfg.Peers), slices.Clone(cfg.Nodes)
	if o.outgoing == nil {
		o.none()
	}
}

// none forgets all of them; a new server begins with what is asked for.
func (o *overlaps) none() {
	o.outgoing, o.clients = make(map[netip.Addr]time.Time), make(map[netip.Addr]time.Time)
	o.left = make(map[netip.Addr]time.Time)
	o.count.Store(0)
}

// isNode reports whether an address is that of a node of the cluster.
func (o *overlaps) isNode(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(o.asked.Nodes, a, netip.Addr.Compare)
	return found
}

// reflectingTime grows with the cluster: in a mesh of a thousand nodes each has as many sessions to begin. It is never longer than the overlap.
func (s *Speaker) reflectingTime() time.Duration {
	if s.opts.Reflecting != 0 {
		return min(s.opts.Reflecting, s.opts.Overlap)
	}
	return min(reflecting+time.Duration(len(s.overlaps.asked.Nodes))*reflectingEach, s.opts.Overlap)
}

// overlapped returns what is asked for with the sessions that go on for a while (make before break).
//
// That is those with nodes that are still in the cluster, until every session that is new has brought its End-of-RIB and every prefix that is in use because of
// them is known from another peer. The reflector's End-of-RIB alone would not do: it may have been sent before the other clients had told the
// reflector theirs.
//
// A session that the peer has ended goes on only for the time in which others may need what is reflected. Then what it brought is kept for our own use
// but told to nobody: another reflector may prefer it to what it hears itself (GoBGP does not compare the lengths of CLUSTER_LISTs, RFC 4456 section 9),
// and would then not send us the prefix, for which we would wait in vain.
func (s *Speaker) overlapped() bgp.Config {
	cfg, o, now := s.overlaps.asked, &s.overlaps, time.Now()
	cfg.Peers = slices.Clone(cfg.Peers)
	named := make(map[netip.Addr]bool, len(cfg.Peers))
	wanted := make(map[netip.Addr]bool, len(cfg.Peers)) // true: the session is begun anew
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		named[p.Addr] = true
		if was, had := s.peers[p.Addr]; p.Held == "" {
			wanted[p.Addr] = !had || len(bgp.Resets(&was, p)) > 0 && !s.staysClient(&was, p)
		}
	}
	for a, p := range s.peers {
		switch {
		case named[a] || !o.isNode(a) || s.absent(&p):
			delete(o.outgoing, a)
		case o.outgoing[a].IsZero():
			o.outgoing[a] = now.Add(s.opts.Overlap)
			time.AfterFunc(s.opts.Overlap, s.feed.kick)
			time.AfterFunc(s.reflectingTime(), s.feed.kick)
		}
	}
	clear(o.left)
	needed := s.feed.needed(o.outgoing, wanted)
	for a, until := range o.outgoing {
		if !needed[a] || !now.Before(until) {
			delete(o.outgoing, a)
			continue
		}
		if s.feed.isRestarting(a) && !now.Before(until.Add(s.reflectingTime()-s.opts.Overlap)) {
			o.left[a] = until
			delete(o.outgoing, a)
			continue
		}
		p := s.peers[a]
		p.Source = strings.TrimSuffix(p.Source, outgoing) + outgoing
		cfg.Peers = append(cfg.Peers, p)
	}
	s.clientsYet(cfg.Peers, now)
	if len(o.outgoing)+len(o.clients)+len(o.left) > 0 || s.replaces(named, wanted) {
		nodes, announce := o.asked.Nodes, o.asked.Announce // of this Config for good
		s.feed.crosses(s.reflectingTime()+2*detained, func(p netip.Prefix, hop netip.Addr) bool {
			_, is := slices.BinarySearchFunc(nodes, hop, netip.Addr.Compare)
			return is && (announce == nil || slices.ContainsFunc(announce.Pools, func(q netip.Prefix) bool { return ranged(q, p) }))
		})
	}
	o.count.Store(int32(len(o.outgoing) + len(o.clients)))
	slices.SortFunc(cfg.Peers, func(a, b bgp.Peer) int { return strings.Compare(a.Name, b.Name) })
	return cfg
}

// replaces reports whether sessions with nodes of the cluster end or begin, where there were some before. named are the sessions that are asked for,
// wanted those of them that are to run, true for those that begin.
func (s *Speaker) replaces(named, wanted map[netip.Addr]bool) bool {
	for a, p := range s.peers {
		if !named[a] && p.Node != "" { // which may have left the cluster
			return true
		}
	}
	for a, begins := range wanted {
		if begins && s.overlaps.isNode(a) && len(s.peers) > 0 {
			return true
		}
	}
	return false
}

// clientsYet leaves as they are the sessions with clients that are to be clients no more, until their time has come and no session is outgoing.
func (s *Speaker) clientsYet(peers []bgp.Peer, now time.Time) {
	o := &s.overlaps
	for i := range peers {
		p := &peers[i]
		was, had := s.peers[p.Addr]
		if !had || !s.staysClient(&was, p) {
			delete(o.clients, p.Addr)
			continue
		}
		if o.clients[p.Addr].IsZero() {
			o.clients[p.Addr] = now.Add(s.reflectingTime())
			time.AfterFunc(s.reflectingTime(), s.feed.kick)
		}
		if len(o.outgoing) == 0 && !now.Before(o.clients[p.Addr]) {
			delete(o.clients, p.Addr)
			continue
		}
		was.Name, was.Source, was.Node, was.Import, was.Export = p.Name, p.Source+clientYet, p.Node, p.Import, p.Export
		was.BFD, was.KeepNextHop, was.SelfNextHop, was.Sources = p.BFD, p.KeepNextHop, p.SelfNextHop, p.Sources
		*p = was
	}
}

// staysClient reports whether a client that is to be none any more is given time.
func (s *Speaker) staysClient(was, now *bgp.Peer) bool {
	return was.Client && !now.Client && s.overlaps.isNode(now.Addr) && !s.absent(was) && returns(was, now)
}

// returns reports whether a session that is begun anew leads to the same peer on the same terms, so that what it had brought may be used meanwhile.
func returns(was, now *bgp.Peer) bool {
	return now.Held == "" && now.ASN == was.ASN && now.LocalASN == was.LocalASN && now.Password == was.Password
}

// review ends what has been replaced. It runs after whatever was learned has been delivered; an Apply that is under way wakes us when it is done.
func (s *Speaker) review(ctx context.Context) {
	o := &s.overlaps
	if o.count.Load() == 0 || !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if s.stopped || s.srv == nil {
		return
	}
	before := o.count.Load()
	full := s.overlapped()
	if o.count.Load() == before {
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
// theirs here, too, until their End-of-RIB, and those that the peer has ended, until another way is known; not those that may lead to somebody else.
func (s *Speaker) parting(wanted map[netip.Addr]bgp.Peer) (ending map[netip.Addr]struct{}, kept map[netip.Addr]time.Duration) {
	ending, kept = make(map[netip.Addr]struct{}), make(map[netip.Addr]time.Duration)
	for a, was := range s.peers {
		now, ok := wanted[a]
		switch {
		case s.absent(&was) || !s.overlaps.isNode(a) || ok && len(bgp.Resets(&was, &now)) == 0:
		case !ok:
			ending[a] = struct{}{}
			if until := s.overlaps.left[a]; !until.IsZero() {
				kept[a] = time.Until(until)
			}
		case returns(&was, &now):
			ending[a], kept[a] = struct{}{}, s.opts.Overlap
		}
	}
	return ending, kept
}

// part ends sessions that way, as far as that is done before the server is told, and says of which is kept what they brought, and for how long at most.
func (s *Speaker) part(wanted map[netip.Addr]bgp.Peer) (kept map[netip.Addr]time.Duration) {
	ending, kept := s.parting(wanted)
	if len(ending) == 0 {
		return kept
	}
	for a, most := range kept {
		s.feed.hold(a, most)
	}
	for a := range ending {
		why := "ended here: its routes have come another way"
		if now, returns := wanted[a]; returns {
			was := s.peers[a]
			why = "begun anew here: another " + strings.Join(bgp.Resets(&was, &now), ", ")
		}
		s.feed.ends(a, why)
	}
	s.sockets(ending, func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
	return kept
}
