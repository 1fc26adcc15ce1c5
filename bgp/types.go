package bgp

import (
	"context"
	"net/netip"
	"time"
)

// Config is the whole desired state of a Speaker, made by Plan.
type Config struct {
	ASN         uint32
	RouterID    netip.Addr   // IPv4 form
	ListenAddrs []netip.Addr // empty = every address
	ListenPort  uint16
	Peers       []Peer // sorted by name
	// Originate is the set of prefixes this node announces, sorted, each once.
	Originate []Origination
}

// Peer is one configured session: one address, one family (Calico runs IPv4 over IPv4 and IPv6 over IPv6).
type Peer struct {
	Name        string // Calico's: Mesh_192_0_2_12, Global_..., Node_...
	Addr        netip.Addr
	Port        uint16
	ASN         uint32
	LocalAddr   netip.Addr    // source address of the session; invalid = the kernel chooses
	Passive     bool          // Calico's rule: the lexically smaller address string waits (confd PROC processMeshPeers)
	RestartTime time.Duration // asked of the peer in our OPEN (RFC 4724 section 3); 0 = DefaultRestartTime
	KeepNextHop bool
	TTLSecurity uint8  // hops; 0 = off, multihop with TTL 64
	Source      string // object it comes from: "Node node-b (mesh)", "BGPPeer rack1-tor"
	Node        string // the cluster node behind the address, "" if none
}

// Origination is one prefix of our own.
type Origination struct {
	Prefix    netip.Prefix
	Source    string // "BlockAffinity node-a-10-244-1-0-26", "workload interface route"
	LocalPref uint32 // 2147483647 - metric, iBGP only
}

// Path is one path learned from a peer, after import rules.
type Path struct {
	Prefix    netip.Prefix
	Peer      string // Peer.Name
	PeerAddr  netip.Addr
	NextHop   netip.Addr
	LocalPref uint32 // 100 when the peer sent none (eBGP)
	MED       uint32
	ASPath    []uint32
	Stale     bool // retained by graceful restart
	Best      bool // among the equal best paths, all of which are used
}

// Learned is a change in what is known of one prefix: all usable equal best paths, empty when none is left.
type Learned struct {
	Prefix netip.Prefix
	Paths  []Path
}

// SessionState is the RFC 4271 section 8.2.2 state of a session.
type SessionState string

// PeerStatus is one session as inspection shows it.
type PeerStatus struct {
	Peer
	State      SessionState // Idle, Connect, Active, OpenSent, OpenConfirm, Established
	Since      time.Time
	LastError  string // "sent: Cease/Administrative Reset", "received: ...", "dial: connection refused"
	Received   int    // prefixes accepted from the peer
	Advertised int    // prefixes sent to it
	EndOfRIB   bool   // the peer has sent End-of-RIB for the session's family
	Restarting bool   // the peer is gone and its paths are kept (RFC 4724)
}

// Events are what a Speaker calls back with, each from one goroutine of the Speaker's, never concurrently.
type Events struct {
	// Learned delivers changed prefixes in batches, the first batch after Start included.
	Learned func([]Learned)
	// Peers is called when any session's state changes.
	Peers func()
	// InSync is called once: every configured peer has sent End-of-RIB, or the restart timer has run out (RFC 4724 section 4.1).
	InSync func()
}

// Speaker is a running BGP engine. Methods may be called from any goroutine.
type Speaker interface {
	// Apply makes the engine's configuration equal to cfg: only what differs is touched, paths are added before
	// peers, an unchanged session never flaps.
	Apply(ctx context.Context, cfg Config) error
	// Peers returns every configured session, sorted by name.
	Peers() []PeerStatus
	// Paths returns every path known for a prefix, the losers too.
	Paths(p netip.Prefix) []Path
	// Stop ends the engine. graceful keeps our routes at the peers (RFC 4724: no NOTIFICATION, or one that
	// does not end graceful restart); otherwise a Cease is sent and peers withdraw.
	Stop(ctx context.Context, graceful bool) error
}
