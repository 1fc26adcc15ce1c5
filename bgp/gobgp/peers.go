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

type count struct {
	received, looped, advertised int
	hold                         time.Duration
	sent, got                    bgp.Messages
}

// Peers returns every configured session; see bgp.Speaker. Counts may be a second old.
func (s *Speaker) Peers() []bgp.PeerStatus {
	out := s.feed.statuses()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return out
	}
	counted := s.counts.get(s.srv, &s.cfg)
	for i := range out {
		c := counted[out[i].Addr]
		out[i].OurASN = s.cfg.LocalAS(&out[i].Peer)
		out[i].RetryAt = s.retryAt[out[i].Addr]
		out[i].SentMessages, out[i].ReceivedMessages = c.sent, c.got
		if out[i].State == stateEstablished {
			out[i].Received, out[i].Looped, out[i].Advertised, out[i].HoldTime = c.received, c.looped, c.advertised, c.hold
		}
	}
	return out
}

// get counts. What is advertised is asked of the server only for peers that hear learned routes from us or have rules; to all others
// go those of our own routes that are let out, which need not be counted per peer.
func (c *counts) get(srv *server.BgpServer, cfg *bgp.Config) map[netip.Addr]count {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < countAge {
		return c.m
	}
	own := ownSent(cfg)
	ask := make(map[netip.Addr]bool)
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		if p.Held == "" && (cfg.External(p) || p.Client || len(p.Export) > 0) {
			ask[p.Addr] = true
		}
	}
	m := make(map[netip.Addr]count)
	note := func(p *api.Peer, exact bool) {
		addr, err := netip.ParseAddr(p.GetConf().GetNeighborAddress())
		if err != nil {
			return
		}
		n := count{advertised: own[addr.Is6()], hold: time.Duration(p.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second,
			sent: messages(p.GetState().GetMessages().GetSent()), got: messages(p.GetState().GetMessages().GetReceived())}
		for _, a := range p.AfiSafis {
			n.received += int(a.GetState().GetAccepted())
			n.looped += max(int(a.GetState().GetReceived())-int(a.GetState().GetAccepted()), 0)
			if exact {
				n.advertised = int(a.GetState().GetAdvertised())
			}
		}
		m[addr] = n
	}
	_ = srv.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) { note(p, false) })
	for addr := range ask {
		_ = srv.ListPeer(context.Background(), &api.ListPeerRequest{Address: addr.String(), EnableAdvertised: true}, func(p *api.Peer) { note(p, true) })
	}
	c.m, c.at = m, time.Now()
	return m
}

func messages(m *api.Message) bgp.Messages {
	return bgp.Messages{Open: m.GetOpen(), Update: m.GetUpdate(), Keepalive: m.GetKeepalive(), Notification: m.GetNotification(),
		RouteRefresh: m.GetRefresh(), Withdrawn: m.GetWithdrawPrefix()}
}

// ownSent returns how many of our own routes go to a peer without rules, by "is IPv6".
func ownSent(cfg *bgp.Config) map[bool]int {
	own := make(map[bool]int)
	nobody := &bgp.Peer{}
	for i := range cfg.Originate {
		if _, v := cfg.Send(nobody, bgp.RouteFrom(&cfg.Originate[i])); v.Accept {
			own[cfg.Originate[i].Prefix.Addr().Is6()]++
		}
	}
	return own
}
