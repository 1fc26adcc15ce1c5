package gobgp

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

const (
	holdTime     = 90 // seconds (RFC 4271 section 10)
	keepalive    = holdTime / 3
	connectRetry = 5 // seconds, as Calico's bird.cfg; GoBGP takes 2 for the first try
	idleHold     = 1 // seconds, after a reset by hand only
	// ttl is what BIRD's "multihop" stands for: eBGP peers may be any number of hops away.
	ttl = 64
	// deferralInternal and deferralExternal are the Selection Deferral Timers of the package documentation, in seconds.
	deferralInternal = 1
	deferralExternal = 30
)

// global translates what concerns the server as a whole.
func global(cfg *bgp.Config) *api.Global {
	g := &api.Global{
		Asn:              cfg.ASN,
		RouterId:         cfg.RouterID.String(),
		ListenPort:       int32(listenPort(cfg)),
		Families:         []uint32{0, 1}, // IPv4 and IPv6 unicast as GoBGP numbers OpenConfig's names
		UseMultiplePaths: true,
	}
	for _, a := range cfg.ListenAddrs {
		g.ListenAddresses = append(g.ListenAddresses, a.String())
	}
	return g
}

func listenPort(cfg *bgp.Config) uint16 { return cmp.Or(cfg.ListenPort, bgp.DefaultPort) }

// peer translates one session.
func (s *Speaker) peer(p *bgp.Peer) *api.Peer {
	out := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Addr.String(), PeerAsn: p.ASN, LocalAsn: p.LocalASN,
			AllowOwnAsn: uint32(p.AllowOwnAS), AuthPassword: string(p.Password),
		},
		Transport:    &api.Transport{PassiveMode: p.Passive, RemotePort: uint32(cmp.Or(p.Port, bgp.DefaultPort))},
		EbgpMultihop: &api.EbgpMultihop{Enabled: true, MultihopTtl: ttl},
		Timers:       timers(p.Keepalive),
		GracefulRestart: &api.GracefulRestart{
			Enabled:             true,
			RestartTime:         restartSeconds(p.RestartTime),
			DeferralTime:        deferralInternal,
			NotificationEnabled: true,
			LocalRestarting:     s.opts.Restarting && !s.feed.synced() || s.feed.retaining(),
		},
		AfiSafis: []*api.AfiSafi{{
			Config:            &api.AfiSafiConfig{Family: apiFamily(p.Addr), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
			AddPaths:          &api.AddPaths{Config: &api.AddPathsConfig{Receive: true}},
		}},
	}
	if p.MaxPrefixes != 0 {
		out.AfiSafis[0].PrefixLimits = &api.PrefixLimit{Family: apiFamily(p.Addr), MaxPrefixes: p.MaxPrefixes}
	}
	if s.cfg.External(p) || p.Client {
		out.GracefulRestart.DeferralTime = deferralExternal
	}
	if p.Client {
		out.RouteReflector = &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: p.ClusterID.String()}
	}
	if p.TTLSecurity != 0 {
		out.EbgpMultihop = nil
		out.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(p.TTLSecurity)} // RFC 5082 section 3
	}
	if p.LocalAddr.IsValid() {
		out.Transport.LocalAddress = p.LocalAddr.String()
	}
	return out
}

// timers returns a session's timers. A keepalive time of its own needs a hold time to fit: three times as long (RFC 4271
// section 4.4), but never shorter than the usual one, for the peer's may be short enough.
func timers(every time.Duration) *api.Timers {
	hold, interval := uint64(holdTime), uint64(keepalive)
	if every > 0 {
		interval = uint64(max(every.Round(time.Second)/time.Second, 1))
		hold = max(hold, 3*interval)
	}
	return &api.Timers{Config: &api.TimersConfig{
		HoldTime: hold, KeepaliveInterval: interval, ConnectRetry: connectRetry, IdleHoldTimeAfterReset: idleHold,
	}}
}

// restartSeconds is the Restart Time we ask for; the field has twelve bits (RFC 4724 section 3).
func restartSeconds(d time.Duration) uint32 {
	d = cmp.Or(d, bgp.DefaultRestartTime)
	return uint32(min(max(d.Round(time.Second)/time.Second, 1), 4095))
}

func apiFamily(a netip.Addr) *api.Family {
	f := &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	if a.Is6() {
		f.Afi = api.Family_AFI_IP6
	}
	return f
}

func family(a netip.Addr) gobgp.Family {
	if a.Is6() {
		return gobgp.RF_IPv6_UC
	}
	return gobgp.RF_IPv4_UC
}

// originated translates an origination. The unspecified next hop stands for the local address of each session.
func originated(o bgp.Origination) (*apiutil.Path, error) {
	nlri, err := gobgp.NewIPAddrPrefix(o.Prefix)
	if err != nil {
		return nil, err
	}
	path := &apiutil.Path{
		Family: family(o.Prefix.Addr()),
		Nlri:   nlri,
		Age:    time.Now().Unix(),
		Attrs:  []gobgp.PathAttributeInterface{gobgp.NewPathAttributeOrigin(gobgp.BGP_ORIGIN_ATTR_TYPE_IGP), gobgp.NewPathAttributeLocalPref(o.LocalPref)},
	}
	var hop gobgp.PathAttributeInterface
	if o.Prefix.Addr().Is4() {
		hop, err = gobgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
	} else {
		hop, err = gobgp.NewPathAttributeMpReachNLRI(path.Family, []gobgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
	}
	path.Attrs = append(path.Attrs, hop)
	return path, err
}

// prefixOf returns the prefix of a unicast route, or the zero Prefix for any other kind.
func prefixOf(nlri gobgp.NLRI) netip.Prefix {
	if p, ok := nlri.(*gobgp.IPAddrPrefix); ok {
		return p.Prefix
	}
	return netip.Prefix{}
}
