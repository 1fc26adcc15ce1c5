// Command plaingobgp is the GoBGP library run as a router that knows nothing of us: a peers.Config in, and on a unix socket what package
// peers asks of every router.
//
//	plaingobgp config.json socket [restarted]
//
//	GET /sessions -> []peers.Session; GET /paths?prefix= -> []peers.Path; POST /reload reads the file again
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"reflect"
	"sync"
	"syscall"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/caracal-net/caracal/test/peers"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: plaingobgp config.json socket [restarted]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], len(os.Args) > 3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file, socket string, restarted bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r := &router{file: file, restarted: restarted, srv: server.NewBgpServer(server.LoggerOption(slog.New(slog.NewTextHandler(os.Stderr, nil)), nil))}
	go r.srv.Serve()
	if err := r.load(ctx); err != nil {
		return err
	}
	_ = os.Remove(socket) // a killed one's
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sessions", answer(func(req *http.Request) (any, error) { return r.sessions(req.Context()) }))
	mux.HandleFunc("GET /paths", answer(func(req *http.Request) (any, error) { return r.paths(req.FormValue("prefix")) }))
	mux.HandleFunc("POST /reload", answer(func(req *http.Request) (any, error) { return nil, r.load(req.Context()) }))
	s := &http.Server{Handler: mux}
	go func() {
		<-ctx.Done()
		_ = r.srv.StopBgp(context.Background(), &api.StopBgpRequest{})
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		out, err := f(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(out)
	}
}

// router is the library's server and what it has been told.
type router struct {
	file      string
	restarted bool
	srv       *server.BgpServer

	mu  sync.Mutex
	cfg peers.Config
}

// load makes the server what the file says.
func (r *router) load(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, err := os.ReadFile(r.file)
	if err != nil {
		return err
	}
	var cfg peers.Config
	if err := json.Unmarshal(data, &cfg); err != nil {
		return err
	}
	if r.cfg.ASN == 0 {
		err = r.srv.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{Asn: cfg.ASN, RouterId: cfg.RouterID.String(), ListenPort: 179, Families: []uint32{0, 1}}})
		if err != nil {
			return err
		}
	}
	was := r.cfg
	r.cfg = cfg
	return errors.Join(r.announce(&was, true), r.announce(&cfg, false), r.neighbours(ctx, &was, &cfg))
}

// announce adds what a configuration originates, or takes away what the new one does not.
func (r *router) announce(cfg *peers.Config, away bool) error {
	keep := make(map[netip.Prefix]bool)
	for _, p := range r.cfg.Originate {
		keep[p] = true
	}
	for _, p := range cfg.Originate {
		if away && keep[p] {
			continue
		}
		path, err := originated(p, cfg.Communities)
		switch {
		case err != nil:
		case away:
			err = r.srv.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{path}})
		default:
			_, err = r.srv.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{path}})
		}
		if err != nil {
			return fmt.Errorf("announce %s: %w", p, err)
		}
	}
	return nil
}

func originated(p netip.Prefix, communities []string) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(p)
	if err != nil {
		return nil, err
	}
	path := &apiutil.Path{Family: familyOf(p.Addr()), Nlri: nlri, Attrs: []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}}
	var hop bgp.PathAttributeInterface
	if p.Addr().Is4() {
		hop, err = bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
	} else {
		hop, err = bgp.NewPathAttributeMpReachNLRI(path.Family, []bgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
	}
	path.Attrs = append(path.Attrs, hop)
	var plain []uint32
	var large []*bgp.LargeCommunity
	for _, text := range communities {
		var a, b, c uint32
		if n, _ := fmt.Sscanf(text, "%d:%d:%d", &a, &b, &c); n == 3 {
			large = append(large, bgp.NewLargeCommunity(a, b, c))
		} else {
			plain = append(plain, a<<16|b)
		}
	}
	if len(plain) > 0 {
		path.Attrs = append(path.Attrs, bgp.NewPathAttributeCommunities(plain))
	}
	if len(large) > 0 {
		path.Attrs = append(path.Attrs, bgp.NewPathAttributeLargeCommunities(large))
	}
	return path, err
}

// neighbours begins sessions anew that are not what they were.
func (r *router) neighbours(ctx context.Context, was, now *peers.Config) error {
	same := make(map[netip.Addr]bool)
	for _, old := range was.Neighbours {
		for _, n := range now.Neighbours {
			same[n.Addr] = same[n.Addr] || reflect.DeepEqual(old, n)
		}
		if same[old.Addr] {
			continue
		}
		if err := r.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: old.Addr.String()}); err != nil {
			return fmt.Errorf("neighbour %s: %w", old.Addr, err)
		}
	}
	for _, n := range now.Neighbours {
		if same[n.Addr] {
			continue
		}
		if err := r.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: r.peer(&n)}); err != nil {
			return fmt.Errorf("neighbour %s: %w", n.Addr, err)
		}
	}
	return nil
}

func (r *router) peer(n *peers.Neighbour) *api.Peer {
	fam := &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	if n.Addr.Is6() {
		fam.Afi = api.Family_AFI_IP6
	}
	p := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: n.Addr.String(), PeerAsn: n.ASN, AuthPassword: n.Password, AdminDown: n.Shut},
		Transport: &api.Transport{PassiveMode: n.Passive, RemotePort: uint32(n.Port)},
		Timers:    &api.Timers{Config: &api.TimersConfig{ConnectRetry: 2, IdleHoldTimeAfterReset: 1}},
		AfiSafis:  []*api.AfiSafi{{Config: &api.AfiSafiConfig{Family: fam, Enabled: true}}},
	}
	if n.Local.IsValid() {
		p.Transport.LocalAddress = n.Local.String()
	}
	if n.TTLSecurity {
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 255}
	} else {
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: 64}
	}
	if n.GracefulRestart > 0 {
		p.GracefulRestart = &api.GracefulRestart{Enabled: true, RestartTime: uint32(n.GracefulRestart.Seconds()), DeferralTime: 1, LocalRestarting: r.restarted}
		p.AfiSafis[0].MpGracefulRestart = &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}}
	}
	if n.HoldTime > 0 {
		p.Timers.Config.HoldTime, p.Timers.Config.KeepaliveInterval = uint64(n.HoldTime.Seconds()), uint64(n.HoldTime.Seconds())/3
	}
	if n.MaxPrefixes > 0 {
		p.AfiSafis[0].PrefixLimits = &api.PrefixLimit{Family: fam, MaxPrefixes: uint32(n.MaxPrefixes)}
	}
	return p
}

func (r *router) sessions(ctx context.Context) ([]peers.Session, error) {
	var out []peers.Session
	err := r.srv.ListPeer(ctx, &api.ListPeerRequest{EnableAdvertised: true}, func(p *api.Peer) {
		addr, _ := netip.ParseAddr(p.GetState().GetNeighborAddress())
		s := peers.Session{Neighbour: addr, State: p.GetState().GetSessionState().String(), LastError: p.GetState().GetDisconnectMessage(),
			Established: p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED}
		for _, f := range p.AfiSafis {
			s.Received += int(f.GetState().GetAccepted())
			s.Sent += int(f.GetState().GetAdvertised())
		}
		out = append(out, s)
	})
	return out, err
}

func (r *router) paths(text string) ([]peers.Path, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, err
	}
	var out []peers.Path
	req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: familyOf(prefix.Addr()), Prefixes: []*apiutil.LookupPrefix{{Prefix: text}}}
	err = r.srv.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
		for _, p := range paths {
			out = append(out, translate(p, prefix))
		}
	})
	return out, err
}

func translate(p *apiutil.Path, prefix netip.Prefix) peers.Path {
	out := peers.Path{Prefix: prefix, Best: p.Best}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			out.NextHop = a.Value
		case *bgp.PathAttributeMpReachNLRI:
			out.NextHop = a.Nexthop
		case *bgp.PathAttributeLocalPref:
			out.LocalPref = a.Value
		case *bgp.PathAttributeMultiExitDisc:
			out.MED = a.Value
		case *bgp.PathAttributeAsPath:
			for _, s := range a.Value {
				out.ASPath = append(out.ASPath, s.GetAS()...)
			}
		case *bgp.PathAttributeCommunities:
			for _, c := range a.Value {
				out.Communities = append(out.Communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			}
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				out.Large = append(out.Large, fmt.Sprintf("%d:%d:%d", c.ASN, c.LocalData1, c.LocalData2))
			}
		}
	}
	return out
}

func familyOf(a netip.Addr) bgp.Family {
	if a.Is6() {
		return bgp.RF_IPv6_UC
	}
	return bgp.RF_IPv4_UC
}
