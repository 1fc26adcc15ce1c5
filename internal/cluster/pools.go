package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// judgePools decides which pools are in effect. all is sorted by name; standing returns the form in which a pool was in
// effect until now, or nil. The result holds no two overlapping pools, and every pool that stood and is still asked for.
func judgePools(all []*Pool, standing func(name string) *Pool) (good []*Pool, problems []Problem) {
	j := judge{standing: standing}
	var moved, fresh []*Pool
	for _, p := range all {
		was := standing(p.Name)
		form := j.form(p, was)
		switch {
		case form == nil:
		case was == nil:
			fresh = append(fresh, form)
		case was.CIDR == form.CIDR:
			j.good = append(j.good, form) // cannot overlap: what stood did not
		default:
			j.good = append(j.good, was)
			moved = append(moved, form)
		}
	}
	for _, p := range j.move(moved) {
		j.overlap(p, fmt.Sprintf("the pool stays at %v", standing(p.Name).CIDR))
	}
	// The same order on every node and after every start, whatever a process has seen before.
	slices.SortStableFunc(fresh, func(p, q *Pool) int { return p.Created.Compare(q.Created) })
	for _, p := range fresh {
		if j.inTheWay(p) == nil {
			j.good = append(j.good, p)
		} else {
			j.overlap(p, "the pool is not used")
		}
	}
	return j.good, j.problems
}

// move lets pools with a new CIDR have it where no other pool stands, again and again because one move may clear the way
// for the next, and returns those that have to stay.
func (j *judge) move(moved []*Pool) []*Pool {
	for {
		stay := moved[:0:0]
		for _, p := range moved {
			if j.inTheWay(p) != nil {
				stay = append(stay, p)
				continue
			}
			at := slices.IndexFunc(j.good, func(q *Pool) bool { return q.Name == p.Name })
			j.good[at] = p
		}
		if len(stay) == len(moved) {
			return stay
		}
		moved = stay
	}
}

type judge struct {
	standing func(name string) *Pool
	good     []*Pool
	problems []Problem
}

// form returns the form in which a pool can be used, judged by itself: as written, as it was last good, or nil.
func (j *judge) form(p, was *Pool) *Pool {
	object := "IPPool " + p.Name
	keep := "the pool is not used"
	if was != nil {
		keep = "the pool stays in effect as it was"
	}
	switch {
	case !p.CIDR.IsValid() || p.CIDR != p.CIDR.Masked():
		j.problems = append(j.problems, Problem{
			Object: object, Field: "spec.cidr",
			Text: fmt.Sprintf("%q is not the prefix of a network; %s; write it as 10.244.0.0/16, with no bits set past the length", p.CIDR, keep),
		})
		return was
	case !p.CIDR.Addr().Is4() && p.IPIPMode != Never:
		if was == nil || was.IPIPMode != Never { // it never was better
			plain := *p
			plain.IPIPMode = Never
			keep, was = "it is used without IPIP", &plain
		}
		j.problems = append(j.problems, Problem{
			Object: object, Field: "spec.ipipMode",
			Text: fmt.Sprintf("IPIP carries IPv4 only and the pool is %v; %s; set ipipMode to Never, and vxlanMode to %v if it needs a tunnel",
				p.CIDR, keep, p.IPIPMode),
		})
		return was
	case p.IPIPMode != Never && p.VXLANMode != Never:
		if was == nil || was.IPIPMode != Never && was.VXLANMode != Never { // it never was better
			keep, was = "it is used as a VXLAN pool", p
		}
		j.problems = append(j.problems, Problem{
			Object: object, Field: "spec.ipipMode",
			Text: fmt.Sprintf("ipipMode is %v and vxlanMode is %v, and a pool has one encapsulation; %s; set one of the two to Never",
				p.IPIPMode, p.VXLANMode, keep),
		})
		return was
	}
	return p
}

// inTheWay returns the first pool in effect, by name, that another one overlaps.
func (j *judge) inTheWay(p *Pool) *Pool {
	var found *Pool
	for _, q := range j.good {
		if q.Name != p.Name && q.CIDR.Overlaps(p.CIDR) && (found == nil || strings.Compare(q.Name, found.Name) < 0) {
			found = q
		}
	}
	return found
}

func (j *judge) overlap(p *Pool, outcome string) {
	q := j.inTheWay(p)
	j.problems = append(j.problems, Problem{
		Object: "IPPool " + p.Name, Field: "spec.cidr",
		Text: fmt.Sprintf("%v overlaps IPPool %s (%v), which is in effect; %s; give the two pools separate ranges",
			p.CIDR, q.Name, q.CIDR, outcome),
	})
}
