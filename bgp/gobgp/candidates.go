package gobgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/caracal-net/caracal/bgp"
)

// picture is what a question about routes is answered from: a server and the configuration it follows. Every list it reads is a copy
// that the server makes, with its one lock held: questions are for people, not for loops.
type picture struct {
	srv   *server.BgpServer
	cfg   bgp.Config
	peers map[netip.Addr]*bgp.Peer // of cfg
}

// look returns a picture, nil where no server runs.
func (s *Speaker) look() *picture {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return nil
	}
	p := &picture{srv: s.srv, cfg: s.cfg, peers: make(map[netip.Addr]*bgp.Peer, len(s.cfg.Peers))}
	for i := range p.cfg.Peers {
		p.peers[p.cfg.Peers[i].Addr] = &p.cfg.Peers[i]
	}
	return p
}

// tables of a server.
const (
	inTable    = api.TableType_TABLE_TYPE_GLOBAL
	received   = api.TableType_TABLE_TYPE_ADJ_IN
	advertised = api.TableType_TABLE_TYPE_ADJ_OUT
)

// list calls do with the paths of every prefix of one family in a table, in the server's order of preference; peer is that of the
// tables that are a peer's.
func (p *picture) list(table api.TableType, peer string, fam gobgp.Family, only []*apiutil.LookupPrefix, do func(netip.Prefix, []bgp.Candidate)) error {
	req := apiutil.ListPathRequest{TableType: table, Name: peer, Family: fam, Prefixes: only}
	return p.srv.ListPath(req, func(nlri gobgp.NLRI, paths []*apiutil.Path) {
		prefix := prefixOf(nlri)
		if !prefix.IsValid() {
			return
		}
		list := make([]bgp.Candidate, len(paths))
		for i, path := range paths {
			list[i] = p.candidate(path, prefix)
			if why := p.cfg.Nowhere.Why(prefix, list[i].NextHop); why != "" && !list[i].Local && table != advertised {
				list[i].Lost, list[i].Best = why, false
			}
		}
		do(prefix, list)
	})
}

// candidate turns a path into our words.
func (p *picture) candidate(path *apiutil.Path, prefix netip.Prefix) bgp.Candidate {
	c := bgp.Candidate{Path: translate(path, prefix), Local: !path.PeerAddress.IsValid(), Since: time.Unix(path.Age, 0)}
	if peer := p.peers[path.PeerAddress]; peer != nil {
		c.Peer, c.External = peer.Name, p.cfg.External(peer)
	}
	for _, a := range path.Attrs {
		switch a := a.(type) {
		case *gobgp.PathAttributeOrigin:
			c.Origin = bgp.Origin(a.Value)
		case *gobgp.PathAttributeOriginatorId:
			c.OriginatorID = a.Value
		case *gobgp.PathAttributeClusterList:
			c.ClusterList = a.Value
		}
	}
	if path.IsNexthopInvalid {
		c.Lost = "the engine finds the next hop out of reach"
	}
	return c
}

// Candidates returns every path to a prefix and why it is not used; see bgp.Speaker.
func (s *Speaker) Candidates(prefix netip.Prefix) []bgp.Candidate {
	p := s.look()
	if p == nil || !prefix.IsValid() {
		return nil
	}
	prefix = prefix.Masked()
	only := []*apiutil.LookupPrefix{{Prefix: prefix.String()}}
	var out []bgp.Candidate
	err := p.list(inTable, "", family(prefix.Addr()), only, func(_ netip.Prefix, list []bgp.Candidate) {
		for i := range list {
			if !list[i].Best && list[i].Lost == "" {
				list[i].Lost = bgp.WhyLost(&list[0], &list[i])
			}
		}
		out = append(out, list...)
	})
	for i := range p.cfg.Peers {
		peer := &p.cfg.Peers[i]
		if peer.Held != "" || peer.Addr.Is4() != prefix.Addr().Is4() {
			continue
		}
		err = cmp.Or(err, p.list(received, peer.Addr.String(), family(prefix.Addr()), only, func(_ netip.Prefix, list []bgp.Candidate) {
			out = append(out, p.refused(peer, list, out)...)
		}))
	}
	if err != nil {
		s.opts.Log.Debug("candidates of a prefix", keyPrefix, prefix, keyError, err)
	}
	return out
}

// refused returns those of a peer's paths that are not among the known ones, each with the reason.
func (p *picture) refused(peer *bgp.Peer, sent, known []bgp.Candidate) []bgp.Candidate {
	var out []bgp.Candidate
	for _, c := range sent {
		at := slices.IndexFunc(known, func(k bgp.Candidate) bool { return k.PeerAddr == c.PeerAddr && k.ID == c.ID })
		if at >= 0 {
			unmark(&known[at], &c)
			continue
		}
		c.Lost, c.Refused = p.whyRefused(peer, &c), true
		out = append(out, c)
	}
	return out
}

// unmark takes off a path what has it be the last choice (program.nowhere), which is no word of the peer's.
func unmark(c, sent *bgp.Candidate) {
	if c.Stalest() && !sent.Stalest() {
		c.MED = sent.MED
		c.Communities = slices.DeleteFunc(slices.Clone(c.Communities), func(x bgp.Community) bool { return x == bgp.LLGRStale() })
	}
}

// whyRefused says why a path that a peer has sent is not in the table.
func (p *picture) whyRefused(peer *bgp.Peer, c *bgp.Candidate) string {
	own := p.cfg.LocalAS(peer)
	loops := 0
	for _, as := range c.ASPath {
		if as == own {
			loops++
		}
	}
	switch {
	case loops > int(peer.AllowOwnAS):
		return fmt.Sprintf("our own AS %d is in the AS path (RFC 4271 section 9.1.2)", own)
	case !p.cfg.External(peer) && c.OriginatorID.IsValid() && c.OriginatorID == p.cfg.RouterID:
		return "the path began with us (ORIGINATOR_ID, RFC 4456 section 8)"
	}
	_, v := p.cfg.Accept(peer, bgp.RouteOf(&c.Path))
	if v.Accept {
		return "the engine has left it out" // should not be
	}
	return v.By
}

// Exchange returns what goes between us and a peer; see bgp.Speaker.
func (s *Speaker) Exchange(addr netip.Addr, d bgp.Direction, within netip.Prefix) ([]bgp.Exchanged, error) {
	p := s.look()
	if p == nil {
		return nil, fmt.Errorf("no BGP speaker runs")
	}
	peer := p.peers[addr]
	if peer == nil {
		return nil, fmt.Errorf("%s is not a configured BGP peer", addr)
	}
	if peer.Held != "" || !s.feed.isUp(addr) && !s.feed.isRestarting(addr) {
		return nil, nil
	}
	var out []bgp.Exchanged
	var err error
	if d == bgp.FromPeer {
		out, err = p.fromPeer(peer, within)
	} else if s.feed.isUp(addr) {
		out, err = p.toPeer(peer, within, s.feed.takes(addr))
	}
	if err != nil {
		return nil, fmt.Errorf("routes of BGP peer %s: %w", peer.Name, err)
	}
	slices.SortStableFunc(out, func(a, b bgp.Exchanged) int {
		return cmp.Or(a.Before.Prefix.Compare(b.Before.Prefix), cmp.Compare(a.Before.ID, b.Before.ID))
	})
	return out, nil
}

// isUp reports whether the session with a peer is established.
func (f *feed) isUp(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[a]
	return s != nil && s.state == stateEstablished
}

// ranged reports whether all of q lies in a range, of which the zero Prefix is none.
func ranged(within, q netip.Prefix) bool {
	return !within.IsValid() || within.Bits() <= q.Bits() && within.Contains(q.Addr())
}

func (p *picture) fromPeer(peer *bgp.Peer, within netip.Prefix) ([]bgp.Exchanged, error) {
	type key struct {
		prefix netip.Prefix
		id     uint32
	}
	used := make(map[key]*bgp.Candidate)
	err := p.list(inTable, "", family(peer.Addr), nil, func(prefix netip.Prefix, list []bgp.Candidate) {
		for i := range list {
			if list[i].PeerAddr != peer.Addr || !ranged(within, prefix) {
				continue
			}
			if !list[i].Best && list[i].Lost == "" {
				list[i].Lost = bgp.WhyLost(&list[0], &list[i])
			}
			used[key{prefix, list[i].ID}] = &list[i]
		}
	})
	if err != nil {
		return nil, err
	}
	var out []bgp.Exchanged
	err = p.list(received, peer.Addr.String(), family(peer.Addr), nil, func(prefix netip.Prefix, list []bgp.Candidate) {
		for _, c := range list {
			if !ranged(within, prefix) {
				continue
			}
			x := bgp.Exchanged{Before: c, After: used[key{prefix, c.ID}]}
			if x.After == nil {
				x.By = p.whyRefused(peer, &c)
			} else {
				_, v := p.cfg.Accept(peer, bgp.RouteOf(&c.Path))
				x.By = v.By
				unmark(x.After, &c)
			}
			out = append(out, x)
		}
	})
	return out, err
}

// toPeer returns what goes to a peer; takes says whether it takes IPv6 next hops of IPv4 prefixes.
func (p *picture) toPeer(peer *bgp.Peer, within netip.Prefix, takes bool) ([]bgp.Exchanged, error) {
	sent := make(map[netip.Prefix]*bgp.Candidate)
	err := p.list(advertised, peer.Addr.String(), family(peer.Addr), nil, func(prefix netip.Prefix, list []bgp.Candidate) {
		if len(list) > 0 {
			sent[prefix] = &list[0]
		}
	})
	if err != nil {
		return nil, err
	}
	var out []bgp.Exchanged
	err = p.list(inTable, "", family(peer.Addr), nil, func(prefix netip.Prefix, list []bgp.Candidate) {
		if len(list) == 0 || !ranged(within, prefix) {
			return
		}
		x := bgp.Exchanged{Before: list[0], After: sent[prefix]}
		x.By = p.whySent(peer, &x, takes)
		out = append(out, x)
	})
	for i := range out {
		if c := &out[i].Before; c.Stalest() {
			err = cmp.Or(err, p.asSent(c))
		}
	}
	return out, err
}

// asSent takes off a path that was received what has it be the last choice.
func (p *picture) asSent(c *bgp.Candidate) error {
	only := []*apiutil.LookupPrefix{{Prefix: c.Prefix.String()}}
	return p.list(received, c.PeerAddr.String(), family(c.Prefix.Addr()), only, func(_ netip.Prefix, list []bgp.Candidate) {
		for i := range list {
			if list[i].ID == c.ID {
				unmark(c, &list[i])
			}
		}
	})
}

// whySent says what decided about a route to a peer.
func (p *picture) whySent(to *bgp.Peer, x *bgp.Exchanged, takes bool) string {
	from := &x.Before
	r := bgp.RouteOf(&from.Path)
	if from.Local {
		i := slices.IndexFunc(p.cfg.Originate, func(o bgp.Origination) bool { return o.Prefix == from.Prefix })
		if i >= 0 {
			r = bgp.RouteFrom(&p.cfg.Originate[i])
		} else {
			r.Learned = false
		}
	}
	_, v := p.cfg.Send(to, r)
	if x.After != nil || !v.Accept {
		return v.By
	}
	source := p.peers[from.PeerAddr]
	switch {
	case from.PeerAddr == to.Addr:
		return "the best path came from this peer"
	case slices.Contains(from.ASPath, to.ASN):
		return fmt.Sprintf("the peer's AS %d is in the AS path", to.ASN)
	case !takes && ofOtherFamily(from.Prefix, from.NextHop) && keepsNextHops(&p.cfg, to):
		return "the peer does not offer to take IPv6 next hops of IPv4 prefixes (RFC 8950)"
	case source != nil && !p.cfg.External(to) && !p.cfg.External(source) && !to.Client && !source.Client:
		return "learned by iBGP, not passed on to iBGP peers (RFC 4271 section 9.2)"
	}
	return "the engine keeps it back"
}
