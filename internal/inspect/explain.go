package inspect

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// Short names for what every finding is made of.
const (
	ok      = caracalv1.Level_LEVEL_OK
	warn    = caracalv1.Level_LEVEL_WARN
	missing = caracalv1.Level_LEVEL_MISSING

	stepAddress = caracalv1.ExplainStep_KIND_ADDRESS
	stepPool    = caracalv1.ExplainStep_KIND_POOL
	stepBlock   = caracalv1.ExplainStep_KIND_BLOCK
	stepNode    = caracalv1.ExplainStep_KIND_NODE
	stepPath    = caracalv1.ExplainStep_KIND_PATH
	stepPeer    = caracalv1.ExplainStep_KIND_PEER
	stepVTEP    = caracalv1.ExplainStep_KIND_VTEP
	stepRule    = caracalv1.ExplainStep_KIND_RULE
	stepRoute   = caracalv1.ExplainStep_KIND_ROUTE
	stepKernel  = caracalv1.ExplainStep_KIND_KERNEL
)

// explainer follows one packet's way. What it has found so far decides what it looks for next; a thing that is missing
// is reported and the way goes on, for the last step, the kernel's own answer, is always worth having.
type explainer struct {
	src   *Sources
	state *cluster.State
	addr  netip.Addr
	host  netip.Prefix // the address alone
	fam   cluster.Family

	hostOf, tunnelOf string // the node whose own, or whose tunnel's, address it is
	tunnelKind       string
	pool             *cluster.Pool
	block            *cluster.Block
	borrowed         bool
	nodeName         string // who uses the address, "" if not known
	node             *cluster.Node
	routes           []routes.Status // desired routes that cover it, longest first
	paths            []bgp.Candidate

	steps []*caracalv1.ExplainStep
	brief map[*caracalv1.ExplainStep]string // what the verdict says of a step, where that is not its text
}

// explain answers one question; it is a pure function of what the sources return.
func explain(ctx context.Context, src *Sources, addr netip.Addr) *caracalv1.ExplainResponse {
	e := &explainer{
		src: src, state: src.State(), addr: addr, host: netip.PrefixFrom(addr, addr.BitLen()), fam: cluster.FamilyOf(addr),
		brief: map[*caracalv1.ExplainStep]string{},
	}
	e.routes = src.Routes(func(s *routes.Status) bool { return covers(s.Route.Dst, e.host) })
	slices.SortFunc(e.routes, func(a, b routes.Status) int {
		if a.Route.Dst.Bits() != b.Route.Dst.Bits() {
			return b.Route.Dst.Bits() - a.Route.Dst.Bits()
		}
		return compareStatus(&a, &b)
	})
	e.findAddress()
	if e.hostOf == "" {
		e.findPool()
		e.findBlock()
		e.findNode()
		e.findWay()
	}
	e.findRoute()
	answer := e.askKernel(ctx)
	return &caracalv1.ExplainResponse{
		Address: addr.String(), Node: src.Node, Steps: e.steps, Verdict: e.verdict(answer),
	}
}

// add appends a step and returns it, so that a remedy can be set.
func (e *explainer) add(kind caracalv1.ExplainStep_Kind, level caracalv1.Level, format string, args ...any) *caracalv1.ExplainStep {
	s := &caracalv1.ExplainStep{Kind: kind, Level: level, Text: fmt.Sprintf(format, args...)}
	e.steps = append(e.steps, s)
	return s
}

// local reports whether we use the address ourselves.
func (e *explainer) local() bool { return e.nodeName != "" && e.nodeName == e.src.Node }

// findAddress says what the address is where it is more than a workload's.
func (e *explainer) findAddress() {
	if e.state == nil {
		e.add(stepAddress, missing, "nothing is known of the cluster: the datastore has not been read yet").Remedy =
			"caracal status says what it waits for"
		return
	}
	for _, a := range e.state.AddrsIn(e.host) {
		whose := a.Node
		if whose == e.src.Node {
			whose += " (this node)"
		}
		switch a.Kind {
		case cluster.HostAddr:
			if e.hostOf != "" {
				e.add(stepAddress, warn, "%v is claimed by %s as its own address too", e.addr, whose).Remedy = "give one of the two nodes another address"
				continue
			}
			e.hostOf = a.Node
			e.add(stepAddress, ok, "%v is the own address of %s; Caracal does not route it, the host's own routes do", e.addr, whose)
		case cluster.IPIPTunnelAddr, cluster.VXLANTunnelAddr:
			kind := "VXLAN"
			if a.Kind == cluster.IPIPTunnelAddr {
				kind = "IPIP"
			}
			if e.tunnelOf != "" && e.tunnelOf != a.Node {
				e.add(stepAddress, warn, "%v is the %s tunnel address of %s too", e.addr, kind, whose).Remedy = "release it on one of the two nodes"
				continue
			}
			e.tunnelOf, e.tunnelKind = a.Node, kind
			e.add(stepAddress, ok, "%v is the %s tunnel address of %s", e.addr, kind, whose)
		}
	}
}

func (e *explainer) findPool() {
	if e.state == nil {
		return
	}
	e.pool = e.state.PoolFor(e.host)
	if e.pool == nil {
		e.add(stepPool, warn, "no IPPool contains %v", e.addr)
		return
	}
	encap, mode := e.pool.Encapsulation()
	words := []string{fmt.Sprintf("%s %v", e.pool.Name, e.pool.CIDR)}
	if encap == cluster.NoEncapsulation {
		words = append(words, "no encapsulation")
	} else {
		words = append(words, fmt.Sprintf("%v %v", encap, mode))
	}
	if e.pool.Disabled {
		words = append(words, "gives out no new addresses")
	}
	if e.pool.Terminating {
		words = append(words, "is being deleted")
	}
	e.add(stepPool, ok, "%s", strings.Join(words, ", "))
}

// findBlock finds who uses the address: the block's owner, or whoever borrowed it.
func (e *explainer) findBlock() {
	if e.state == nil || e.pool == nil {
		return
	}
	e.block = e.state.BlockOf(e.addr)
	if e.block == nil {
		e.add(stepBlock, missing, "no IPAM block contains %v: no node has claimed this part of pool %s, so no workload can have it", e.addr, e.pool.Name)
		return
	}
	if e.block.Virtual != "" {
		e.add(stepBlock, warn, "%v belongs to %s, which is not a node: such blocks are not routed", e.block.CIDR, e.block.Virtual)
		return
	}
	e.nodeName = e.block.Node
	for _, b := range e.block.Borrowed {
		if b.Addr == e.addr && b.Node != e.block.Node {
			e.nodeName, e.borrowed = b.Node, true
		}
	}
	owner := e.block.Node
	if owner == "" {
		owner = "no node"
	}
	switch {
	case e.borrowed:
		e.add(stepBlock, ok, "%v of %s; %v in it is borrowed by %s", e.block.CIDR, owner, e.addr, e.nodeName)
	case e.block.Node == "":
		e.add(stepBlock, missing, "%v has no owner: its node gave it up or was removed while addresses were in use", e.block.CIDR).Remedy =
			"release what is left in it, or let a node claim it"
	default:
		e.add(stepBlock, ok, "%v of %s", e.block.CIDR, owner)
	}
}

func (e *explainer) findNode() {
	if e.nodeName == "" {
		return
	}
	e.node = e.state.Node(e.nodeName)
	if e.local() {
		e.add(stepNode, ok, "%s is this node", e.nodeName)
		return
	}
	if e.node == nil {
		e.add(stepNode, missing, "%s is not in the datastore, but owns the address", e.nodeName).Remedy =
			"create the Node, or release its blocks"
		return
	}
	addr := e.node.Addr(e.fam)
	self := e.state.Node(e.src.Node)
	switch {
	case !addr.IsValid():
		e.add(stepNode, missing, "%s has no %v address", e.nodeName, e.fam).Remedy = "set " + nodeAddressField(e.fam) + " of Node " + e.nodeName
	case self == nil:
		e.add(stepNode, warn, "%s at %v; our own Node %s is not in the datastore, so its subnet cannot be told", e.nodeName, addr.Addr(), e.src.Node)
	case self.SameSubnet(addr.Addr()):
		e.add(stepNode, ok, "%s at %v, in our subnet %v", e.nodeName, addr.Addr(), self.Addr(e.fam).Masked())
	case !self.Addr(e.fam).IsValid():
		e.add(stepNode, warn, "%s at %v; we have no %v address ourselves", e.nodeName, addr.Addr(), e.fam).Remedy =
			"set " + nodeAddressField(e.fam) + " of Node " + e.src.Node
	default:
		e.add(stepNode, ok, "%s at %v, outside our subnet %v", e.nodeName, addr.Addr(), self.Addr(e.fam).Masked())
	}
}

// nodeAddressField is the field of a Node that holds its address of a family.
func nodeAddressField(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "spec.bgp.ipv4Address"
	}
	return "spec.bgp.ipv6Address"
}

// tunnelField is the field of a Node that holds its VXLAN tunnel address of a family.
func tunnelField(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "spec.ipv4VXLANTunnelAddr"
	}
	return "spec.ipv6VXLANTunnelAddr"
}
