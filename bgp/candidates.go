package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Origin is where a path says that its prefix comes from (RFC 4271 section 5.1.1).
type Origin uint8

// The origins, numbered as on the wire.
const (
	OriginIGP Origin = iota
	OriginEGP
	OriginIncomplete
)

// String returns the RFC's word.
func (o Origin) String() string {
	switch o {
	case OriginIGP:
		return "IGP"
	case OriginEGP:
		return "EGP"
	case OriginIncomplete:
		return "INCOMPLETE"
	}
	return fmt.Sprintf("origin %d", uint8(o))
}

// Candidate is one path to a prefix with everything that the choice between paths looks at (RFC 4271 section 9.1.2.2).
type Candidate struct {
	Path
	Local        bool // we originate it
	External     bool // learned by eBGP
	Origin       Origin
	OriginatorID netip.Addr // RFC 4456, invalid for none
	ClusterList  []netip.Addr
	Since        time.Time // when it was received
	// Lost says why the path is not used, "" if it is. Refused: it takes no part in the choice.
	Lost    string
	Refused bool
}

// Stalest reports whether the path is to be used only where there is no other (RFC 9494 section 4.3).
func (c *Candidate) Stalest() bool { return slices.Contains(c.Communities, LLGRStale()) }

// Direction is one of the two ways routes go between us and a peer.
type Direction uint8

// The directions.
const (
	FromPeer Direction = iota
	ToPeer
)

// Exchanged is a route between us and a peer.
type Exchanged struct {
	// Before is the path before policy: as the peer sent it, or as our table has it.
	Before Candidate
	// After is the path after policy: as our table has it, or as it is sent; nil where it was kept out or back.
	After *Candidate
	// By is what decided: "BGPFilter rack spec.importV4[2]", "own block".
	By string
}

// WhyLost says at which step of the decision a path falls behind the best one, in the order in which the engine takes them: the steps
// of RFC 4271 section 9.1.2.2 without the IGP cost, which no node has. Paths that are equal up to there are used together.
func WhyLost(best, c *Candidate) string {
	switch {
	case c.Stalest() && !best.Stalest():
		return "community LLGR_STALE goes behind everything (RFC 9494)"
	case c.LocalPref < best.LocalPref:
		return fmt.Sprintf("LOCAL_PREF %d is lower than %d", c.LocalPref, best.LocalPref)
	case best.Local && !c.Local:
		return "our own route goes first"
	case len(c.ASPath) > len(best.ASPath):
		return fmt.Sprintf("AS path of %d is longer than %d", len(c.ASPath), len(best.ASPath))
	case c.Origin > best.Origin:
		return fmt.Sprintf("ORIGIN %s goes behind %s", c.Origin, best.Origin)
	case c.MED > best.MED:
		return fmt.Sprintf("MED %d is higher than %d", c.MED, best.MED)
	case best.External && !c.External:
		return "iBGP goes behind eBGP"
	case c.MED < best.MED:
		// MED is compared among paths through one neighbouring AS only, but equal paths have equal ones.
		return fmt.Sprintf("the best path was there first; MED %d of another AS does not count, but is not equal to %d either, as it is for paths used together", c.MED, best.MED)
	}
	return "the best path was there first"
}
