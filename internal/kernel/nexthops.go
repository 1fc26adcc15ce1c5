package kernel

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Nexthop is a nexthop object (linux/nexthop.h, since Linux 5.3): a way out with a number, to which routes refer by RTA_NH_ID. It is one of
// four: a gateway on a link, a link alone, a blackhole, or a group of other objects. Which it is cannot be changed by Replace
// between a group and the others.
type Nexthop struct {
	ID       uint32 // never 0
	Protocol Protocol
	// V6 is the family. An IPv6 route takes only IPv6 objects, blackholes too; an IPv4 route takes either. A group has the
	// families of its members, so its V6 is false and not looked at.
	V6        bool
	Gateway   netip.Addr // invalid = directly on the link
	Link      int        // interface index; 0 for blackholes (the kernel keeps them on lo) and groups
	Onlink    bool       // RTNH_F_ONLINK: the gateway is not looked for
	Blackhole bool
	Group     []GroupMember // equal paths (NEXTHOP_GRP_TYPE_MPATH)
	// Other is set on objects read from the kernel that have more than this type shows: an encapsulation, a resilient
	// group, an object for an FDB. They are never ours.
	Other bool
}

// GroupMember is a share of a group of nexthop objects. Members are no groups themselves, and none may be named twice.
type GroupMember struct {
	ID     uint32
	Weight uint16 // as ip(8) prints it: 1 is one share; 0 reads as 1; written up to 256, as kernels before 6.12 take no more
}

// Equal reports whether two objects are the same in everything that is written.
func (n *Nexthop) Equal(o *Nexthop) bool {
	if n.ID != o.ID || n.Protocol != o.Protocol || n.Other != o.Other || len(n.Group) != len(o.Group) {
		return false
	}
	if len(n.Group) > 0 {
		return slices.EqualFunc(n.Group, o.Group, func(a, b GroupMember) bool {
			return a.ID == b.ID && max(a.Weight, 1) == max(b.Weight, 1)
		})
	}
	if n.Blackhole || o.Blackhole {
		return n.Blackhole == o.Blackhole && n.V6 == o.V6
	}
	return n.V6 == o.V6 && n.Gateway == o.Gateway && n.Link == o.Link && n.Onlink == o.Onlink
}

// NexthopOp is one element of a batch. Of the object of a Delete only the ID counts.
type NexthopOp struct {
	Verb    Verb
	Nexthop *Nexthop
}

// Nexthops is the part of the kernel that holds nexthop objects.
//
// No verb but Add is safe from another program: the kernel compares no protocol in Replace and Delete. So
// these two are for numbers under which an object of ours was read back, and Add is for all others.
type Nexthops interface {
	// SupportsNexthops tries whether this kernel has nexthop objects, by making a blackhole under ProbeNexthop and removing it again.
	SupportsNexthops(ctx context.Context) (bool, error)
	// ListNexthops dumps all objects in the order of their numbers; yield may keep nothing of the *Nexthop but copies (its Group too).
	// ErrInterrupted means what was yielded is not a consistent picture, ErrUnsupported that there are no objects in this kernel.
	ListNexthops(ctx context.Context, yield func(*Nexthop) bool) error
	// Replace is for an object that is there (ErrNotThere): one that the kernel has dropped took its routes along, and whoever made it anew
	// unawares would never hear of them.
	//
	// WriteNexthops performs the operations in order, in as few messages and acknowledgements as it can, with errors as in
	// WriteRoutes. Delete drops the routes of the object and of groups that it was the last member of, and takes it out of
	// the other groups; see the package's essay for which events tell of it.
	WriteNexthops(ctx context.Context, ops []NexthopOp, failed func(i int, err error)) error
}

// ProbeNexthop is the number that SupportsNexthops tries with. It is above every number that Caracal gives; an object found there
// with our protocol is left from a probe that was cut short, and may be removed.
const ProbeNexthop uint32 = 0xCA_FF_FF_FF

// maxWeight is what a group member's share may be on every kernel (struct nexthop_grp: a byte, plus one).
const maxWeight = 256

// FormatNexthop writes an object on one line as ip(8) prints it ("ip nexthop show", with "-N", numbers for protocols), but for the
// scope, which follows from the rest.
func FormatNexthop(n *Nexthop, linkName func(int) string) string {
	var b strings.Builder
	b.WriteString("id " + strconv.FormatUint(uint64(n.ID), 10))
	before := " group "
	for _, m := range n.Group {
		b.WriteString(before + strconv.FormatUint(uint64(m.ID), 10))
		before = "/"
		if m.Weight > 1 {
			b.WriteString("," + strconv.Itoa(int(m.Weight)))
		}
	}
	switch {
	case len(n.Group) > 0:
	case n.Blackhole:
		b.WriteString(" blackhole")
	default:
		if n.Gateway.IsValid() {
			b.WriteString(" via " + n.Gateway.String())
		}
		if n.Link != 0 {
			b.WriteString(" dev " + linkName(n.Link))
		}
	}
	if n.Protocol != 0 {
		b.WriteString(" proto " + n.Protocol.String())
	}
	if n.Onlink {
		b.WriteString(" onlink")
	}
	return b.String()
}

// String names an operation for errors.
func (op NexthopOp) String() string {
	if op.Nexthop == nil {
		return op.Verb.String() + " nexthop"
	}
	if op.Verb == Delete {
		return "delete nexthop id " + strconv.FormatUint(uint64(op.Nexthop.ID), 10)
	}
	return op.Verb.String() + " nexthop " + FormatNexthop(op.Nexthop, func(link int) string { return "link " + strconv.Itoa(link) })
}
