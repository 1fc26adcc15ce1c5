package gobgp

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/caracal-net/caracal/bgp"
)

// countAge is how old the counts that Peers returns may be. Counting stops the whole server for a moment.
const countAge = time.Second

// counts remembers the prefix counts of sessions.
type counts struct {
	mu sync.Mutex
	at time.Time
	m  map[netip.Addr]count
}

type count struct{ received, advertised int }

// Peers returns every configured session; see bgp.Speaker. Counts may be a second old. Advertised is exact for eBGP
// peers; for iBGP it is what we originate in the session's family, which is all we send.
func (s *Speaker) Peers() []bgp.PeerStatus {
	out := s.feed.statuses()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return out
	}
	counted := s.counts.get(s.srv, s.cfg.ASN, s.cfg.Originate)
	for i := range out {
		if out[i].State == stateEstablished {
			c := counted[out[i].Addr]
			out[i].Received, out[i].Advertised = c.received, c.advertised
		}
	}
	return out
}

func (c *counts) get(srv *server.BgpServer, asn uint32, originate []bgp.Origination) map[netip.Addr]count {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < countAge {
		return c.m
	}
	own := make(map[bool]int) // by "is IPv6"
	for _, o := range originate {
		own[o.Prefix.Addr().Is6()]++
	}
	m := make(map[netip.Addr]count)
	var external []string
	note := func(p *api.Peer, exact bool) {
		addr, err := netip.ParseAddr(p.GetConf().GetNeighborAddress())
		if err != nil {
			return
		}
		n := count{advertised: own[addr.Is6()]}
		for _, a := range p.AfiSafis {
			n.received += int(a.GetState().GetAccepted())
			if exact {
				n.advertised = int(a.GetState().GetAdvertised())
			}
		}
		m[addr] = n
		if !exact && p.GetConf().GetPeerAsn() != asn {
			external = append(external, addr.String())
		}
	}
	_ = srv.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) { note(p, false) })
	for _, addr := range external {
		_ = srv.ListPeer(context.Background(), &api.ListPeerRequest{Address: addr, EnableAdvertised: true}, func(p *api.Peer) { note(p, true) })
	}
	c.m, c.at = m, time.Now()
	return m
}
