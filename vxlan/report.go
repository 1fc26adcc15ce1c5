package vxlan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
)

// list writes the list of VTEPs and the conflicts among them anew. Lists handed out before stay as they are.
func (p *Planner) list(st *cluster.State) {
	p.vteps, p.conflicts, p.lostMoved = nil, nil, true
	used := 0
	for i := range families {
		if p.ground.fam[i].used {
			used++
		}
	}
	if p.ground.backend == cluster.BackendNone {
		return
	}
	p.vteps = make([]VTEP, 0, used*len(st.Nodes()))
	for _, n := range st.Nodes() {
		m := p.roll.members[n.Name]
		for i := range families {
			if p.ground.fam[i].used {
				p.report(m, i)
			}
		}
	}
	p.parentProblems()
}

// report adds one node's VTEP of one family. A node with neither address has nothing to do with the family.
func (p *Planner) report(m *member, i int) {
	e, t := &m.ends[i], &p.ground.fam[i]
	if !e.addr.IsValid() && !e.host.IsValid() {
		return
	}
	v := VTEP{
		Node: m.name, Family: families[i], Addr: e.addr, MAC: e.mac, NodeAddr: e.host, Device: t.device,
		Local: m.name == p.node, Condition: InUse,
	}
	switch {
	case !e.whole():
		v.Condition, v.Detail = Incomplete, m.missing(i)
	case e.winner != "":
		v.Condition, v.Detail = Conflict, e.conflict(m.name)
		p.conflicts = append(p.conflicts, cluster.Problem{Object: "Node " + m.name, Field: e.field, Text: v.Detail})
	case !v.Local && e.host == t.self.Addr():
		v.Condition, v.Detail = Conflict, fmt.Sprintf("node %s claims our own address %v", m.name, e.host)
	case t.noDevice != "":
		v.Condition, v.Detail = Waiting, t.noDevice
	}
	p.vteps = append(p.vteps, v)
}

// parentProblems reports an own address that this host does not have: nothing will ever come of waiting for it.
func (p *Planner) parentProblems() {
	for i := range families {
		if t := &p.ground.fam[i]; t.used && t.self.IsValid() && t.noParent != "" {
			p.conflicts = append(p.conflicts, cluster.Problem{
				Object: "Node " + p.node, Field: fieldsOf[i].host,
				Text: t.noParent + "; write the address of an interface of this host there",
			})
		}
	}
}

// finish puts the problems together if one of them moved.
func (p *Planner) finish() {
	if !p.lostMoved {
		return
	}
	p.lostMoved = false
	p.problems = slices.Clone(p.conflicts)
	if first := p.firstLost(); first != nil {
		text := "the block is in no IPPool that is in effect"
		if more := len(p.lost) - 1; more > 0 {
			text = fmt.Sprintf("the block and %d more are in no IPPool that is in effect", more)
		}
		p.problems = append(p.problems, cluster.Problem{
			Object: "IPAMBlock " + first.Name(), Field: "spec.cidr",
			Text: text + "; other nodes' addresses in there are reached only if BGP brings a route; create the pool again, or release the block",
		})
	}
	slices.SortFunc(p.problems, func(a, b cluster.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field))
	})
}

// firstLost returns the first block, by CIDR, that is in no pool.
func (p *Planner) firstLost() *cluster.Block {
	var first *cluster.Block
	for b := range p.lost {
		if first == nil || b.CIDR.Compare(first.CIDR) < 0 {
			first = b
		}
	}
	return first
}
