package bgp

import (
	"context"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Config is the whole desired state of a Speaker, made by Plan.
type Config struct {
	ASN         uint32
	RouterID    netip.Addr   // IPv4 form
	ListenAddrs []netip.Addr // empty = every address
	ListenPort  uint16
	Peers       []Peer // sorted by name
	// Nodes are the addresses of the cluster's other nodes, sorted: a session with one of them that is wanted no more may go on until what
	// replaces it has come (make before break). One with anybody else ends at once.
	Nodes []netip.Addr
	// Workloads are the addresses of Peers that are workloads of this node, sorted, for Routes.
	Workloads []netip.Addr
	// Election says who reflects in a large mesh, and why; nil where none is asked for. The Speaker does not look at it.
	Election *Election
	// Originate is the set of prefixes this node announces, sorted, each once. What of it goes to which peer is for the peer's
	// rules and Announce to say.
	Originate []Origination
	// Held are service addresses that wait for this node's data plane. The Speaker does not look at them.
	Held []Held
	// Announce is what decides about a route no rule of the peer has decided about; nil sends everything.
	Announce *Announce
	// Leaving is how far the node has left.
	Leaving Leaving
	// Ways are the host's own routes, for rules that ask for an interface; empty where no rule does.
	Ways []Way
	// Nowhere are the next hops that lead nowhere; nil where that is not known.
	Nowhere *Nowhere
	// Reach are host routes to peers (BGPPeer reachableBy), for Routes.
	Reach []Reach
	// Sources names where each value comes from, by its name in Effective; made only where a Planner is to explain.
	Sources map[string]string
}

// Peer is one configured session: one address, one family (Calico runs IPv4 over IPv4 and IPv6 over IPv6).
type Peer struct {
	Name        string // Calico's: Mesh_192_0_2_12, Global_..., Node_..., Local_Workload_...
	Addr        netip.Addr
	Port        uint16 // 0 of a local workload, which dials
	ASN         uint32
	LocalASN    uint32        // our AS towards this peer; 0 = Config.ASN
	LocalAddr   netip.Addr    // source address of the session; invalid = the kernel chooses
	Passive     bool          // Calico's rule: the lexically smaller address string waits (confd PROC processMeshPeers)
	RestartTime time.Duration // asked of the peer in our OPEN (RFC 4724 section 3); 0 = DefaultRestartTime
	Keepalive   time.Duration // 0 = a third of the hold time
	TTLSecurity uint8         // hops; 0 = off, multihop with TTL 64
	AllowOwnAS  uint8         // how often our own AS may be in a path from this peer
	MaxPrefixes uint32        // that the peer may send; more end the session for some minutes. 0 = no bound
	Password    Password      // TCP MD5 (RFC 2385); "" = none
	// Held, when not empty, says why the session must not be started although it is wanted, and what to do about it.
	Held        string
	KeepNextHop bool       // next hops are sent as they are, to eBGP peers too
	SelfNextHop bool       // next hops are ours, to iBGP peers too
	Client      bool       // the peer is a client of ours (RFC 4456)
	ClusterID   netip.Addr // ours, set with Client
	// Import and Export are the rules of the peer's BGPFilters for the session's family and kind, in order; shared, not to be
	// written to.
	Import, Export []Rule
	// BFD is how a dead path to the peer is found; with Multiplier 0 it is not looked for. Hops is never auto.
	BFD    cluster.BFD
	Source string // object it comes from: "Node node-b (mesh)", "BGPPeer rack1-tor"
	Node   string // the cluster node behind the address, "" if none
	// Sources names where each value comes from, by its name in Effective; made only where a Planner is to explain.
	Sources map[string]string
}

// Password is one that no log shows.
type Password string

// String hides the password.
func (p Password) String() string {
	if p == "" {
		return ""
	}
	return "(hidden)"
}

// Origination is one prefix of our own.
type Origination struct {
	Prefix    netip.Prefix
	Source    string // "BlockAffinity node-a-10-244-1-0-26", "workload interface route"
	LocalPref uint32 // 2147483647 - metric, iBGP only
	Interface string // of the workload, or that the network is connected to; "" for a block. Set only where a rule asks for interfaces
}

// Reach is a route to a peer that is not reached by the host's own routes.
type Reach struct {
	Peer    netip.Addr
	Gateway netip.Addr
	Source  string // "BGPPeer rack1-tor"
}

// Path is one path learned from a peer, after import rules.
type Path struct {
	Prefix    netip.Prefix // empty in Learned, so that prefixes can share their paths
	Peer      string       // Peer.Name
	PeerAddr  netip.Addr
	NextHop   netip.Addr
	LocalPref uint32 // 100 when the peer sent none (eBGP)
	MED       uint32
	ASPath    []uint32
	// Communities are the standard and large ones, as they were received.
	Communities []Community
	ID          uint32  // path id (RFC 7911), 0 where the session has none
	RouterID    [4]byte // of the peer when it sent the path; zero for our own
	Stale       bool    // retained by graceful restart
	Best        bool    // among the equal best paths, all of which are used
}

// Learned is a change in what is known of one prefix: all usable equal best paths, empty when none is left. Prefixes with the same paths
// may share the slice, which nobody writes to.
type Learned struct {
	Prefix netip.Prefix
	Paths  []Path
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
	// Candidates returns every path to a prefix with why it is not used, the best first; those that were refused come last.
	Candidates(p netip.Prefix) []Candidate
	// Exchange returns the routes of one direction with a peer inside a range, before and after policy, sorted by prefix; the zero Prefix
	// is no range. A peer that is not configured is an error, one whose session is down has none.
	Exchange(peer netip.Addr, d Direction, within netip.Prefix) ([]Exchanged, error)
	// PathDown tells that BFD has found the path to a peer dead: the session ends, its routes go at once, and it is tried again. If perhaps
	// only the peer's control plane has died (its BFD has the C bit clear) and the peer is restarting gracefully, nothing is done: the
	// restart time decides (RFC 5882 section 4.3.2). A peer that is not configured is no error.
	PathDown(ctx context.Context, peer netip.Addr, controlPlane bool) error
	// Stop ends the engine. graceful keeps our routes at the peers (RFC 4724: no NOTIFICATION, or one that
	// does not end graceful restart); otherwise a Cease is sent and peers withdraw.
	Stop(ctx context.Context, graceful bool) error
}
