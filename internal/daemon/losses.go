package daemon

import (
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/vxlan"
)

// judge puts what the rails let through in the place of what the datastore says.
func (c *controller) judge(in *inbox) {
	if in.release {
		c.rails.release()
	}
	if in.host == nil {
		return // nothing is planned yet
	}
	use, next := c.rails.judge(in.update, time.Now(), func(from, to *cluster.State) []loss { return c.losses(from, to, in.host) })
	in.update = use
	if c.again != nil {
		c.again.Stop()
	}
	if !next.IsZero() {
		c.again = time.AfterFunc(time.Until(next), func() { c.post(func(*inbox) {}) })
	}
}

// losses counts what each owner would lose by going from one State to another. A State without our own node loses nothing: the last plan stays.
func (c *controller) losses(from, to *cluster.State, h *routes.Host) []loss {
	if from == nil || to == nil || from.Node(c.node) == nil || to.Node(c.node) == nil {
		return nil
	}
	was, is := c.backend(from), c.backend(to)
	all := []loss{{what: "routes of owner " + string(routes.OwnerVXLAN)}}
	keep := map[routes.Key]bool{}
	for _, r := range vxlan.NewPlanner(c.node).Plan(vxlan.Input{State: to, Host: h, Backend: is, Felix: c.share.vxlan}).Change.Routes {
		keep[r.Key()] = r.Unroutable == "" // one that leads nowhere, for its node is gone, is lost as well
	}
	for _, r := range vxlan.NewPlanner(c.node).Plan(vxlan.Input{State: from, Host: h, Backend: was, Felix: c.share.vxlan}).Change.Routes {
		if r.Unroutable != "" {
			continue
		}
		all[0].of++
		if !keep[r.Key()] {
			all[0].lost++
		}
	}
	if c.workloads.node != "" {
		all = append(all, c.lossesOfWorkloads(from, to))
	}
	if was != cluster.BackendBird {
		return all
	}
	return append(all, c.lossesOfBGP(from, to, h, is)...)
}

// lossesOfBGP counts learned routes whose peers would be gone, and our own announcements.
func (c *controller) lossesOfBGP(from, to *cluster.State, h *routes.Host, backend cluster.Backend) []loss {
	before, _ := c.plannerOfBGP().Plan(from, c.node, h)
	var after bgp.Config
	if backend == cluster.BackendBird {
		after, _ = c.plannerOfBGP().Plan(to, c.node, h)
	}
	peers, announced := map[netip.Addr]bool{}, map[netip.Prefix]bool{}
	for i := range after.Peers {
		peers[after.Peers[i].Addr] = true
	}
	for i := range after.Originate {
		announced[after.Originate[i].Prefix] = true
	}
	learned, own := loss{what: "routes of owner " + string(routes.OwnerBGP)}, loss{what: "announced prefixes", of: len(before.Originate)}
	learned.lost, learned.of = c.learned.Without(func(a netip.Addr) bool { return !peers[a] })
	for i := range before.Originate {
		if !announced[before.Originate[i].Prefix] {
			own.lost++
		}
	}
	return []loss{learned, own}
}

// Release lets happen what the rails hold back, and returns what that is, nil for nothing.
func (c *controller) Release() *held {
	h := c.View().held
	if h != nil {
		c.post(func(in *inbox) { in.release = true })
	}
	return h
}
