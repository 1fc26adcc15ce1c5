package gobgp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/caracal-net/caracal/bgp"
)

// policies keeps the program in force.
type policies struct {
	mark    string
	count   int
	program *program
	six     []netip.Addr              // peers in the program's set of those who take IPv6 next hops of IPv4 prefixes, sorted
	learned map[netip.Prefix]struct{} // elevated prefixes that were learned, in the program's sets
	// refusing are the peers in the program's set of those from whom stand-ins are kept, sorted.
	refusing []netip.Addr

	// What elevate reads without the Speaker's lock, to find out that it has nothing to do: an Apply that takes its time must
	// not hold up what is learned.
	announce atomic.Pointer[bgp.Announce]
	elevated atomic.Int32 // length of learned
}

// newMark returns a community that nobody else uses, because it is random.
func newMark() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return fmt.Sprintf("%d:%d:%d", binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]))
}

// policyNeeded reports whether anything that programs are made of differs.
func policyNeeded(a, b *bgp.Config) bool {
	if !a.Announce.Equal(b.Announce) || a.Leaving != b.Leaving || len(a.Peers) != len(b.Peers) || !slices.Equal(a.Ways, b.Ways) || !a.Nowhere.Equal(b.Nowhere) {
		return true
	}
	for i := range a.Peers {
		p, q := &a.Peers[i], &b.Peers[i]
		if p.Addr != q.Addr || p.ASN != q.ASN || p.LocalASN != q.LocalASN || p.KeepNextHop != q.KeepNextHop || p.SelfNextHop != q.SelfNextHop ||
			!bgp.EqualRules(p.Import, q.Import) || !bgp.EqualRules(p.Export, q.Export) {
			return true
		}
	}
	// The prefixes we originate are named where a rule asks for interfaces, or where a metric makes one an exception.
	return len(b.Ways) > 0 && !slices.Equal(a.Originate, b.Originate) ||
		b.Announce != nil && !slices.Equal(elevatedOf(a), elevatedOf(b))
}

// plain reports whether a Config asks for no policy at all.
func plain(cfg *bgp.Config) bool {
	return cfg.Announce == nil && cfg.Nowhere == nil && cfg.Leaving == bgp.Stays && !slices.ContainsFunc(cfg.Peers, func(p bgp.Peer) bool {
		return p.KeepNextHop || p.SelfNextHop || p.Client || cfg.External(&p) || len(p.Import)+len(p.Export) > 0
	})
}

// syncPolicy puts the program of cfg in the place of the one in force, at once: there is no moment without either. What has
// been sent and accepted by the old one stays until refresh.
func (s *Speaker) syncPolicy(ctx context.Context, cfg *bgp.Config) error {
	if s.policy.program == nil && plain(cfg) || s.policy.program != nil && !policyNeeded(&s.cfg, cfg) {
		return nil
	}
	if s.policy.mark == "" {
		s.policy.mark = newMark()
	}
	s.policy.count++
	s.policy.learned = s.elevatedNow(cfg)
	var elevated []netip.Prefix
	for p := range s.policy.learned {
		elevated = append(elevated, p)
	}
	six, _ := s.feed.takeSix()
	next := compile(cfg, fmt.Sprintf("p%d", s.policy.count), s.policy.mark, elevated, six)
	s.feed.rule(true)
	if err := s.install(ctx, next); err != nil {
		s.discard(ctx, next)
		return fmt.Errorf("apply BGP filters: %w", err)
	}
	s.discard(ctx, s.policy.program)
	s.policy.program, s.policy.six, s.policy.refusing = next, six, nil
	s.policy.announce.Store(cfg.Announce)
	s.policy.elevated.Store(int32(len(s.policy.learned)))
	return nil
}

// install makes a program the one in force.
func (s *Speaker) install(ctx context.Context, g *program) error {
	for _, set := range g.sets {
		if err := s.srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return fmt.Errorf("set of %v: %w", set.DefinedType, err)
		}
	}
	for _, half := range g.halves() {
		if err := s.srv.AddPolicy(ctx, &api.AddPolicyRequest{Policy: half.policy}); err != nil {
			return fmt.Errorf("policy of %d statements: %w", len(half.policy.Statements), err)
		}
	}
	for _, half := range g.halves() {
		err := s.srv.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
			Name: "global", Direction: half.direction, Policies: []*api.Policy{{Name: half.policy.Name}}, DefaultAction: half.otherwise,
		}})
		if err != nil {
			return fmt.Errorf("assign policy: %w", err)
		}
	}
	return nil
}

type half struct {
	direction api.PolicyDirection
	policy    *api.Policy
	otherwise api.RouteAction
}

func (g *program) halves() []half {
	otherwise := api.RouteAction_ROUTE_ACTION_ACCEPT
	if g.refuse {
		otherwise = api.RouteAction_ROUTE_ACTION_REJECT
	}
	return []half{
		{api.PolicyDirection_POLICY_DIRECTION_IMPORT, &api.Policy{Name: g.name + "-import", Statements: g.imports}, api.RouteAction_ROUTE_ACTION_ACCEPT},
		{api.PolicyDirection_POLICY_DIRECTION_EXPORT, &api.Policy{Name: g.name + "-export", Statements: g.exports}, otherwise},
	}
}

// discard takes away a program that is not in force; nil is none. What cannot be taken away costs a little memory.
func (s *Speaker) discard(ctx context.Context, g *program) {
	if g == nil {
		return
	}
	var errs []error
	for _, half := range g.halves() {
		errs = append(errs, s.srv.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: half.policy, All: true}))
	}
	for _, set := range g.sets {
		errs = append(errs, s.srv.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set, All: true}))
	}
	if err := errors.Join(errs...); err != nil {
		s.opts.Log.Debug("take away BGP filters no longer in force", keyError, err)
	}
}

// refresh has routes decided about again for which the outcome changed from one Config to another: those received from peers with
// other rules, and those sent to peers where the plain evaluation of any route differs. Sessions stay up.
func (s *Speaker) refresh(ctx context.Context, was, is *bgp.Config) error {
	before := make(map[netip.Addr]*bgp.Peer, len(was.Peers))
	for i := range was.Peers {
		before[was.Peers[i].Addr] = &was.Peers[i]
	}
	c := s.comparison(was, is)
	var errs []error
	reset := func(p *bgp.Peer, direction api.ResetPeerRequest_Direction) {
		if err := s.reset(ctx, p.Addr, direction); err != nil {
			errs = append(errs, fmt.Errorf("decide again about routes of BGP peer %s: %w", p.Name, err))
		}
	}
	stays := func(p *bgp.Peer) (old *bgp.Peer, yes bool) {
		old = before[p.Addr]
		return old, old != nil && !s.absent(p) && len(bgp.Resets(old, p)) == 0 // a new session begins with the new rules
	}
	// First what is received, of all peers: GoBGP may put two paths of one prefix that it sends right after one another in either order.
	for i := range is.Peers {
		p := &is.Peers[i]
		if old, yes := stays(p); yes && (!bgp.EqualRules(old.Import, p.Import) || c.ways && asks(p.Import) || s.movesNowhere(was, is, p)) {
			reset(p, api.ResetPeerRequest_DIRECTION_IN)
		}
	}
	for i := range is.Peers {
		p := &is.Peers[i]
		if old, yes := stays(p); yes && c.differs(old, p) && !s.feed.laterAgain(p.Addr) {
			reset(p, api.ResetPeerRequest_DIRECTION_OUT)
		}
	}
	return errors.Join(errs...)
}

// reset has routes of one direction decided about again.
func (s *Speaker) reset(ctx context.Context, peer netip.Addr, direction api.ResetPeerRequest_Direction) error {
	err := s.srv.ResetPeer(ctx, &api.ResetPeerRequest{Address: peer.String(), Soft: true, Direction: direction})
	if direction == api.ResetPeerRequest_DIRECTION_OUT {
		s.feed.mu.Lock()
		defer s.feed.mu.Unlock()
		s.feed.toldAll(time.Now())
	}
	return err
}

func asks(rules []bgp.Rule) bool {
	return slices.ContainsFunc(rules, func(r bgp.Rule) bool { return r.Interface != "" })
}

// elevatedNow returns the learned prefixes inside our blocks with an elevated LOCAL_PREF.
func (s *Speaker) elevatedNow(cfg *bgp.Config) map[netip.Prefix]struct{} {
	out := make(map[netip.Prefix]struct{})
	if cfg.Announce == nil {
		return out
	}
	s.feed.each(func(p netip.Prefix, paths []bgp.Path) {
		if elevatedPath(cfg.Announce, &bgp.Learned{Prefix: p, Paths: paths}) {
			out[p] = struct{}{}
		}
	})
	return out
}

// elevate follows what was learned: GoBGP cannot compare LOCAL_PREF but for equality, so elevated prefixes inside our blocks are
// told it by name, and peers that hear learned routes from us are told again.
func (s *Speaker) elevate(ctx context.Context, learned []bgp.Learned) {
	a := s.policy.announce.Load()
	if a == nil || s.policy.elevated.Load() == 0 && !slices.ContainsFunc(learned, func(l bgp.Learned) bool { return elevatedPath(a, &l) }) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil || s.policy.program == nil || s.cfg.Announce == nil {
		return
	}
	s.feed.rule(true)
	defer s.feed.rule(false)
	changed := false
	for _, l := range learned {
		want := elevatedPath(s.cfg.Announce, &l)
		if _, has := s.policy.learned[l.Prefix]; has == want {
			continue
		}
		if err := s.setElevated(ctx, l.Prefix, want); err != nil {
			s.opts.Log.Warn("announce an elevated route of another node", keyPrefix, l.Prefix, keyError, err)
			continue
		}
		changed = true
	}
	if !changed {
		return
	}
	for i := range s.cfg.Peers {
		p := &s.cfg.Peers[i]
		if s.absent(p) || !s.cfg.External(p) && !p.Client {
			continue
		}
		if err := s.reset(ctx, p.Addr, api.ResetPeerRequest_DIRECTION_OUT); err != nil {
			s.opts.Log.Warn("decide again about routes to a BGP peer", keyPeer, p.Name, keyError, err)
		}
	}
}

func elevatedPath(a *bgp.Announce, l *bgp.Learned) bool {
	return slices.ContainsFunc(l.Paths, func(path bgp.Path) bool { return a.ElevatedInside(l.Prefix, path.LocalPref) })
}

func (s *Speaker) setElevated(ctx context.Context, p netip.Prefix, want bool) error {
	name := s.policy.program.elevated[0]
	if p.Addr().Is6() {
		name = s.policy.program.elevated[1]
	}
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name, Prefixes: []*api.Prefix{exactly(p)}}
	defer func() { s.policy.elevated.Store(int32(len(s.policy.learned))) }()
	if want {
		s.policy.learned[p] = struct{}{}
	} else {
		delete(s.policy.learned, p)
	}
	if slices.Contains(elevatedOf(&s.cfg), p) {
		return nil // is in the set for our own route, and stays there
	}
	if want {
		return s.srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set})
	}
	return s.srv.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set})
}
