package vxlan

import (
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// Input is all that a plan is made from.
type Input struct {
	State   *cluster.State
	Host    *routes.Host
	Backend cluster.Backend // in effect; "" is read as bird
	Felix   Felix
}

// Felix is what a Felix on this host means for the plan. The zero value is that there is none.
type Felix struct {
	Beside bool // our devices have names of their own
	// Left says for each family, IPv4 first, why its VXLAN pools are left to Felix; "" = they are ours.
	Left [2]string
	// NoEncap says the same of pools without encapsulation, which matters under backend vxlan.
	NoEncap string
}

// Output is one plan. VTEPs and Problems are whole lists, shared with later plans where they stay the same, and must not be
// written to.
type Output struct {
	Change   routes.Change
	VTEPs    []VTEP            // by name of the node, then family
	Problems []cluster.Problem // by object and field
}

// Planner turns the cluster into routes, step by step: it remembers the last Input and what each block led to. It belongs to
// one goroutine.
type Planner struct {
	node string

	state   *cluster.State // nil: the next plan is whole
	host    *routes.Host
	backend cluster.Backend // as asked for
	ground  ground
	roll    *roll
	blocks  map[*cluster.Block]outcome
	lost    map[*cluster.Block]bool // nodes' blocks in no pool

	change    routes.Change // being made
	lostMoved bool
	vteps     []VTEP
	conflicts []cluster.Problem
	problems  []cluster.Problem
}

// NewPlanner returns a Planner for the named node.
func NewPlanner(node string) *Planner { return &Planner{node: node} }

// Reset makes the next plan a whole one.
func (p *Planner) Reset() { p.state = nil }

// Plan returns what has to change in the programmer since the last plan: everything, the first time, after Reset and after a
// change of backend. Without a State or a Host there is nothing to plan from: the Change is empty and the first plan is
// still to come.
func (p *Planner) Plan(in Input) Output {
	if in.State == nil || in.Host == nil {
		return Output{}
	}
	p.change = routes.Change{}
	if p.state == nil {
		p.planWhole(&in)
	} else {
		p.planStep(&in)
	}
	p.state, p.host, p.backend = in.State, in.Host, in.Backend
	p.finish()
	out := Output{Change: p.change, VTEPs: p.vteps, Problems: p.problems}
	p.change = routes.Change{}
	return out
}

// planWhole plans as if nothing had been planned before.
func (p *Planner) planWhole(in *Input) {
	p.roll = newRollOf(in.State.Nodes())
	p.ground = survey(p.node, in, p.roll)
	blocks := in.State.Blocks()
	p.blocks = make(map[*cluster.Block]outcome, len(blocks))
	p.lost, p.lostMoved = map[*cluster.Block]bool{}, true
	p.change = routes.Change{Whole: true, Links: p.ground.links()}
	if p.ground.backend != cluster.BackendNone {
		p.change.Routes = make([]routes.Route, 0, len(blocks))
		p.everyBlock(in.State)
		p.change.Neighbours = make([]routes.Neighbour, 0, 2*len(p.roll.members))
		for _, n := range in.State.Nodes() {
			p.moveL2(&p.ground, nil, p.roll.members[n.Name])
		}
	}
	p.list(in.State)
}

// planStep plans what is different from the last plan.
func (p *Planner) planStep(in *Input) {
	d := cluster.Diff(p.state, in.State)
	was := p.roll.update(d.Nodes)
	before, ground := p.ground, p.ground
	if _, self := was[p.node]; self || in.Host != p.host || in.Backend != p.backend || in.Felix != p.ground.felix || len(d.Pools) > 0 || d.Felix {
		ground = survey(p.node, in, p.roll)
	}
	if ground.backend != before.backend {
		p.planWhole(in)
		return
	}
	if p.ground = ground; ground.backend == cluster.BackendNone {
		return
	}
	p.dropBlocks(d.Blocks)
	moved := ground != before
	if moved || len(d.Pools) > 0 {
		p.roll.forget()
		p.everyBlock(in.State)
	} else {
		p.blocksOf(in.State, was, d.Nodes)
		p.changedBlocks(in.State, d.Blocks)
	}
	p.moveEndpoints(&before, was, moved)
	if !ground.sameLinks(&before) {
		p.change.Links = ground.links()
	}
	if moved || len(was) > 0 {
		p.list(in.State)
	}
	p.settleWithdrawals()
}

// everyBlock judges all blocks. Blocks and node addresses are both sorted, so one walk brings them together.
func (p *Planner) everyBlock(st *cluster.State) {
	addrs := st.Addrs()
	for _, b := range st.Blocks() {
		first := b.CIDR.Addr()
		for len(addrs) > 0 && addrs[0].Addr.Less(first) {
			addrs = addrs[1:]
		}
		n := 0
		for n < len(addrs) && b.CIDR.Contains(addrs[n].Addr) {
			n++
		}
		p.settle(b, p.judge(st, b, addrs[:n]))
	}
}

// judgeAgain judges one block out of the order.
func (p *Planner) judgeAgain(st *cluster.State, b *cluster.Block) {
	p.settle(b, p.judge(st, b, st.AddrsIn(b.CIDR)))
}

// changedBlocks judges blocks that changed, and those around them, whose addresses they may take or give back.
func (p *Planner) changedBlocks(st *cluster.State, changes []cluster.Change[cluster.Block]) {
	for _, c := range changes {
		b := c.New
		if b == nil {
			b = c.Old
		}
		st.BlocksOver(b.CIDR, func(k *cluster.Block) bool {
			p.judgeAgain(st, k)
			return true
		})
	}
}

// blocksOf judges the blocks in which nodes that changed have a part, as owner, borrower or by an address inside.
func (p *Planner) blocksOf(st *cluster.State, was map[string]*member, changes []cluster.Change[cluster.Node]) {
	if len(was) == 0 {
		return
	}
	named := func(name string) bool { _, ok := was[name]; return ok }
	for _, b := range st.Blocks() {
		if named(b.Node) || slices.ContainsFunc(b.Borrowed, func(a cluster.Assignment) bool { return named(a.Node) }) {
			p.judgeAgain(st, b)
		}
	}
	for _, c := range changes {
		p.blocksAround(st, c.Old)
	}
	for name := range was { // as they are now; one that lost or won a conflict has not changed itself
		if m := p.roll.members[name]; m != nil {
			p.blocksAround(st, m.node)
		}
	}
}

func (p *Planner) blocksAround(st *cluster.State, n *cluster.Node) {
	if n == nil {
		return
	}
	for _, a := range [...]netip.Addr{n.Addr4.Addr(), n.Addr6.Addr(), n.VXLANAddr4, n.VXLANAddr6} {
		if a.IsValid() {
			st.BlocksOver(netip.PrefixFrom(a, a.BitLen()), func(b *cluster.Block) bool {
				p.judgeAgain(st, b)
				return true
			})
		}
	}
}

// dropBlocks forgets blocks that are gone or replaced. A replaced one hands its outcome on, so that only what differs
// is told.
func (p *Planner) dropBlocks(changes []cluster.Change[cluster.Block]) {
	for _, c := range changes {
		if c.Old == nil {
			continue
		}
		o := p.blocks[c.Old]
		delete(p.blocks, c.Old)
		if p.lost[c.Old] {
			delete(p.lost, c.Old)
			p.lostMoved = true
		}
		if c.New != nil {
			o.lost = false
			p.blocks[c.New] = o
		} else {
			p.tell(c.Old.CIDR, o, outcome{})
		}
	}
}

// settle makes an outcome the block's and tells the programmer what is different.
func (p *Planner) settle(b *cluster.Block, o outcome) {
	before := p.blocks[b]
	if before.lost != o.lost {
		p.lostMoved = true
		if o.lost {
			p.lost[b] = true
		} else {
			delete(p.lost, b)
		}
	}
	p.tell(b.CIDR, before, o)
	p.blocks[b] = o
}

func (p *Planner) tell(cidr netip.Prefix, was, is outcome) {
	p.tellOne(cidr, was.way, is.way)
	a, b := was.extra, is.extra
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].addr.Less(b[0].addr):
			p.tellOne(single(a[0].addr), a[0].way, nil)
			a = a[1:]
		case len(a) == 0 || b[0].addr.Less(a[0].addr):
			p.tellOne(single(b[0].addr), nil, b[0].way)
			b = b[1:]
		default:
			p.tellOne(single(a[0].addr), a[0].way, b[0].way)
			a, b = a[1:], b[1:]
		}
	}
}

func (p *Planner) tellOne(dst netip.Prefix, was, is *way) {
	switch {
	case was.same(is):
	case is == nil:
		r := was.to(dst)
		p.change.Withdraw = append(p.change.Withdraw, r.Key())
	default:
		p.change.Routes = append(p.change.Routes, is.to(dst))
	}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// moveEndpoints tells the neighbour and FDB entries that differ. was are the members that changed.
func (p *Planner) moveEndpoints(before *ground, was map[string]*member, moved bool) {
	if !moved {
		for name, m := range was {
			p.moveL2(before, m, p.roll.members[name])
		}
		return
	}
	for name, m := range p.roll.members {
		old, changed := was[name]
		if !changed {
			old = m
		}
		p.moveL2(before, old, m)
	}
	for name, m := range was {
		if p.roll.members[name] == nil {
			p.moveL2(before, m, nil)
		}
	}
}

func (p *Planner) moveL2(before *ground, was, is *member) {
	for i := range families {
		old, had := before.l2(was, i)
		now, has := p.ground.l2(is, i)
		for k := range old {
			switch {
			case had && has && old[k] == now[k]:
			case has:
				p.change.Neighbours = append(p.change.Neighbours, now[k])
				fallthrough
			default:
				if had {
					p.change.WithdrawNeighbours = append(p.change.WithdrawNeighbours, old[k])
				}
			}
		}
	}
}

// settleWithdrawals takes back what one object withdraws and another wants, so that the two lists of a Change never speak of
// one key: a VTEP that moves to another node, an address that passes from a block to a smaller one inside it.
func (p *Planner) settleWithdrawals() {
	c := &p.change
	if len(c.WithdrawNeighbours) > 0 && len(c.Neighbours) > 0 {
		wanted := make(map[routes.Neighbour]bool, len(c.Neighbours))
		for _, n := range c.Neighbours {
			wanted[neighbourKey(n)] = true
		}
		c.WithdrawNeighbours = slices.DeleteFunc(c.WithdrawNeighbours, func(n routes.Neighbour) bool { return wanted[neighbourKey(n)] })
	}
	if len(c.Withdraw) > 0 && len(c.Routes) > 0 {
		wanted := make(map[routes.Key]bool)
		for i := range c.Routes {
			if c.Routes[i].Dst.IsSingleIP() { // longer prefixes belong to one block only
				wanted[c.Routes[i].Key()] = true
			}
		}
		c.Withdraw = slices.DeleteFunc(c.Withdraw, func(k routes.Key) bool { return wanted[k] })
	}
}

// neighbourKey is what the kernel tells entries apart by: the address, or for FDB the MAC.
func neighbourKey(n routes.Neighbour) routes.Neighbour {
	if n.FDB {
		n.Addr = netip.Addr{}
	} else {
		n.MAC = [6]byte{}
	}
	return n
}
