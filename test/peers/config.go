package peers

import (
	"net/netip"
	"strings"
	"time"
)

// Kind names a BGP implementation.
type Kind string

// The implementations.
const (
	BIRD2    Kind = "bird2"
	BIRD1    Kind = "bird1"
	FRR      Kind = "frr"
	GoBGP    Kind = "gobgp"
	OpenBGPD Kind = "openbgpd"
)

// Kinds returns every implementation.
func Kinds() []Kind { return []Kind{BIRD2, BIRD1, FRR, GoBGP, OpenBGPD} }

// Kernel reports whether a kind can write its best paths to the kernel.
func (k Kind) Kernel() bool { return k != GoBGP && k != OpenBGPD }

// BFD reports whether tests of BFD are for a kind. BIRD 1.6 has it too, from the same source as BIRD 2.
func (k Kind) BFD() bool { return k == BIRD2 || k == FRR }

// Config describes a router in words that every implementation has.
type Config struct {
	ASN        uint32
	RouterID   netip.Addr
	Neighbours []Neighbour
	// Originate are announced to every neighbour. They need not be in the kernel.
	Originate []netip.Prefix
	// Communities ("64512:1", "64512:1:2" for large ones) are on all of them.
	Communities []string
	// Kernel: best paths are written to the kernel's main table, by kinds that can (Kind.Kernel).
	Kernel bool
	// DialOnly: nobody can connect to it, so that another speaker of BGP may run in its namespace. FRR alone.
	DialOnly bool
	// Files replace those that would be made of all this, by name; the rest still says what sessions there are.
	Files map[string]string
}

// Neighbour is one session. Its family is that of its address.
type Neighbour struct {
	Addr    netip.Addr
	Port    uint16 // where it is dialled; 0 = 179
	ASN     uint32
	Local   netip.Addr // our address
	Passive bool       // leave it to the neighbour to connect
	Shut    bool       // shut down by hand: the neighbour is told with a NOTIFICATION
	// Password is the TCP MD5 secret (RFC 2385), "" = none.
	Password string
	// TTLSecurity asks for directly connected neighbours by TTL (RFC 5082).
	TTLSecurity bool
	// GracefulRestart is the Restart Time we offer (RFC 4724); 0 = not offered.
	GracefulRestart time.Duration
	// HoldTime is what we offer (RFC 4271 section 4.2), keepalives come at a third of it; 0 = the kind's own.
	HoldTime time.Duration
	// BFD is the interval of BFD packets, both ways, with multiplier 3; 0 = no BFD. Unless BFDMultihop is set, the neighbour must be on
	// a network of the router's. Together with GracefulRestart a neighbour whose C bit is clear may restart without losing its routes (RFC
	// 5882 section 4.3.2).
	BFD         time.Duration
	BFDMultihop bool
	// IPv6NextHop is announced as the next hop of IPv4 prefixes to a neighbour that has offered to take such (RFC 8950). BIRD 2 alone: FRR knows
	// that on IPv6 sessions only.
	IPv6NextHop netip.Addr
	// MaxPrefixes ends the session when the neighbour announces more; 0 = no limit.
	MaxPrefixes int
}

// bfd returns the interval of BFD packets, 0 if no session has BFD.
func (c *Config) bfd() (interval time.Duration) {
	for _, n := range c.Neighbours {
		interval = max(interval, n.BFD)
	}
	return interval
}

// large reports whether a community is a large one.
func large(community string) bool { return strings.Count(community, ":") == 2 }

// internal reports whether the session is iBGP.
func (n *Neighbour) internal(c *Config) bool { return n.ASN == c.ASN }

// Session is the state of one session as the router tells it.
type Session struct {
	Neighbour   netip.Addr
	Established bool
	State       string // in the router's own words
	Received    int    // prefixes accepted
	Sent        int    // prefixes announced
	LastError   string // in the router's own words
}

// Path is one path for a prefix as the router tells it.
type Path struct {
	Prefix      netip.Prefix
	NextHop     netip.Addr
	ASPath      []uint32
	LocalPref   uint32
	MED         uint32
	Communities []string // "64512:1"
	Large       []string // large communities, "64512:1:2"
	Best        bool
}
