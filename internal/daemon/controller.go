package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/startup"
	"github.com/caracal-net/caracal/ipip"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/vxlan"
)

// programmer is what the controller needs of the route programmer.
type programmer interface {
	Apply(owner routes.Owner, c routes.Change)
	Expect(owners ...routes.Owner)
	InSync(owner routes.Owner)
	Within(dsts ...netip.Prefix)
}

// speakers is what the controller needs of the engine: nil asks for no Speaker at all.
type speakers interface{ Set(*bgp.Config) }

// controller turns what is known into what is wanted. Its one goroutine owns the planners; everything that happens
// (a new state, a changed host, learned paths) is left in the inbox and looked at together.
type controller struct {
	node     string
	fallback cluster.Backend // until the datastore names one
	routerID startup.RouterID
	// besideFelix: a Felix runs on this host.
	besideFelix bool
	// adoptFelix: what a Felix has left behind is taken over.
	adoptFelix bool
	log        *slog.Logger
	prog       programmer
	speakers   speakers
	wake       chan struct{}

	mu   sync.Mutex // guards what follows
	in   inbox
	view view

	// Owned by Run's goroutine.
	rails   rails
	again   *time.Timer     // asks the rails again
	why     string          // of this plan, for the history of routes
	seen    inbox           // of the plan before
	planned cluster.Backend // backend the last plan was made for, "" before the first
	partial bool            // a plan from a part of the datastore was made
	whole   bool            // the last plan was one of everything, under bird, for what is in seen
	share   share           // what is left to Felix
	claimed []netip.Prefix  // pools whose leftovers are ours
	vxlan   *vxlan.Planner
	learned *bgp.Routes
	config  *bgp.Config // last one given to the Speaker
	// gated: addresses of Services are announced when this node's data plane for them is verified.
	gated     bool
	served    served
	workloads workloads
	podNode   string       // our node as Kubernetes names it
	pictured  *routes.Host // the host as the last plan had it
	// found, if set, is told what is wrong between Felix and us, when that changes.
	found func([]cluster.Problem)
	told  []cluster.Problem
	// inForce, if set, is told each State in sync that is acted upon, not what the rails hold back.
	inForce func(*cluster.State, cluster.Backend)
}

func newController(node string, fallback cluster.Backend, log *slog.Logger, prog programmer, speakers speakers) *controller {
	c := &controller{
		node: node, fallback: fallback, log: log, prog: prog, speakers: speakers,
		wake:  make(chan struct{}, 1),
		rails: rails{Rails: DefaultRails()},
		vxlan: vxlan.NewPlanner(node),
	}
	c.learned = bgp.NewRoutes(node, c.tunnel)
	return c
}

// String names the task.
func (c *controller) String() string { return "controller" }

// Run is the task.
func (c *controller) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			c.plan(c.take())
		}
	}
}

// plan makes everything wanted equal to what is known. Before the datastore and the host are known nothing is planned, and so
// nothing is touched (invariant 1).
func (c *controller) plan(in inbox) {
	if c.whole && !in.news {
		c.planLearned(in.learned)
		return
	}
	c.whole = false
	if c.planned == cluster.BackendBird {
		c.learned.Learned(in.learned)
	} else {
		in.bgpInSync = false // a Speaker that is not wanted has nothing to say
	}
	c.judge(&in)
	c.because(&in)
	v := view{suspect: in.update.Suspect, held: c.rails.held, state: in.update.State, inSync: in.update.InSync, storeErr: in.update.Err, stale: in.update.Stale, backend: c.backend(in.update.State)}
	if in.host == nil || !in.update.InSync && !usable(&in.update, v.backend) {
		c.planPartial(in, &v)
		c.show(v)
		return
	}
	if in.update.State.Node(c.node) == nil && v.backend != cluster.BackendNone {
		// A cluster without us in it is more likely an accident than a wish: keep what stands.
		v.problems = append(v.problems, cluster.Problem{Object: "Node " + c.node,
			Text: "this node is not in the datastore, so the last plan stays; create the Node resource or start with the right node name"})
		v.planned = c.planned != ""
		c.show(v)
		return
	}
	if c.inForce != nil && in.update.InSync {
		c.inForce(in.update.State, v.backend)
	}
	if v.backend != c.planned {
		c.changeBackend(v.backend, &in)
	}
	c.divide(in, &v)
	if v.backend != cluster.BackendNone {
		c.planWorkloads(&in, &v)
	}
	c.pictured, v.host = in.host, in.host
	switch v.backend {
	case cluster.BackendNone:
	case cluster.BackendVXLAN:
		c.planVXLAN(in, &v)
	default:
		c.planVXLAN(in, &v)
		c.planBGP(in, &v)
		v.problems = append(v.problems, c.undialled(in.update.State)...)
	}
	c.whole = v.backend == cluster.BackendBird
	v.planned = true
	v.bgpDone = v.backend != cluster.BackendBird || in.bgpInSync
	c.show(v)
}

// planLearned plans what nothing but learned paths can change: their routes. Paths may come by the thousand in a second, one by one.
func (c *controller) planLearned(learned []bgp.Learned) {
	if len(learned) == 0 {
		return // a plan before this one has taken them already
	}
	c.learned.Learned(learned)
	change := c.learned.Plan(c.seen.update.State, c.pictured)
	if len(change.Routes)+len(change.Withdraw) == 0 {
		return
	}
	change.Cause = fromBGP(len(learned))
	c.prog.Apply(routes.OwnerBGP, change)
}

func fromBGP(prefixes int) string { return strconv.Itoa(prefixes) + " prefixes from BGP" }

// because says what of the inbox is new since the plan before.
func (c *controller) because(in *inbox) {
	var why []string
	if in.update.State != c.seen.update.State {
		why = append(why, fmt.Sprintf("datastore revision %d", in.update.State.Revision()))
	}
	if n := len(in.learned); n > 0 {
		why = append(why, fromBGP(n))
	}
	if in.host != c.seen.host {
		why = append(why, "the host changed")
	}
	c.why = strings.Join(why, ", ")
	c.seen = inbox{update: in.update, host: in.host}
}

func (c *controller) plannerOfBGP() *bgp.Planner {
	return &bgp.Planner{Match: matchSelector, RouterID: c.routerID.Addr, HashRouterID: c.routerID.Hash, DataPlane: c.served.plane, Leaving: c.served.leaving, PodNode: c.podNode}
}

// usable reports whether a State that is not the datastore's word of now is planned as a whole. Owners are in sync only with the datastore,
// so nothing is deleted for it; but a copy that says none, which means to delete everything, is not acted upon at all.
func usable(u *datastore.Update, backend cluster.Backend) bool {
	return !u.Stale.IsZero() && u.State != nil && backend != cluster.BackendNone
}

// planPartial plans what can be planned from a datastore of which a part cannot be read at start: VXLAN routes are added, so that a
// broken manifest does not cost a fresh node its network. Nothing is marked in sync, so nothing is deleted, and BGP waits:
// a Speaker that announced only a part would make its peers drop the rest.
func (c *controller) planPartial(in inbox, v *view) {
	st := in.update.State
	if in.host == nil || st == nil || c.planned != "" || v.backend == cluster.BackendNone || st.Node(c.node) == nil {
		return
	}
	if !c.partial {
		c.partial = true
		c.prog.Expect(c.owners()...)
	}
	c.share, _ = divide(st, c.besideFelix)
	c.claim(st, v.backend)
	out := c.vxlan.Plan(vxlan.Input{State: st, Host: in.host, Backend: v.backend, Felix: c.share.vxlan})
	c.prog.Apply(routes.OwnerVXLAN, out.Change)
	v.vteps = out.VTEPs
	v.problems = append(v.problems, out.Problems...)
}

// backend returns the backend in force: the datastore's word, since a ConfigMap can change while we run, else the one
// we were started with.
func (c *controller) backend(st *cluster.State) cluster.Backend {
	if st != nil && st.Backend() != "" {
		return st.Backend()
	}
	return c.fallback
}

// changeBackend prepares the planners for another backend. What the old one wanted and the new one does not is withdrawn
// by the programmer once the new owners are in sync, so that a route both want never goes away.
func (c *controller) changeBackend(to cluster.Backend, in *inbox) {
	if c.planned != "" {
		c.log.Info("backend changes", logFrom, c.planned, logTo, to)
	}
	c.planned = to
	c.vxlan.Reset()
	c.speakers.Set(nil) // before its paths are dropped: from here on a former Speaker says nothing more
	c.config = nil
	c.mu.Lock()
	c.in.learned, c.in.bgpInSync = nil, false
	c.mu.Unlock()
	in.bgpInSync = false
	c.learned = bgp.NewRoutes(c.node, c.tunnel)
	c.prog.Expect(c.owners()...)
	if to == cluster.BackendBird {
		return
	}
	nothing := routes.Change{Whole: true, Links: []routes.Link{}}
	if to == cluster.BackendNone {
		c.prog.Apply(routes.OwnerVXLAN, nothing)
		c.prog.InSync(routes.OwnerVXLAN)
		c.leaveWorkloads()
	}
	for _, owner := range []routes.Owner{routes.OwnerIPIP, routes.OwnerBGP} {
		c.prog.Apply(owner, nothing)
		c.prog.InSync(owner)
	}
}

func (c *controller) planVXLAN(in inbox, v *view) {
	out := c.vxlan.Plan(vxlan.Input{State: in.update.State, Host: in.host, Backend: v.backend, Felix: c.share.vxlan})
	out.Change.Cause = c.why
	c.prog.Apply(routes.OwnerVXLAN, out.Change)
	c.settled(in, routes.OwnerVXLAN)
	v.vteps = out.VTEPs
	v.problems = append(v.problems, out.Problems...)
}

func (c *controller) planBGP(in inbox, v *view) {
	st := in.update.State
	links := []routes.Link{}
	link, problems := ipip.Device(st, c.node, in.host)
	if c.share.ipip != "" {
		link, problems = nil, nil // Felix keeps tunl0
	}
	if link != nil {
		links = append(links, *link)
	}
	v.problems = append(v.problems, problems...)
	c.prog.Apply(routes.OwnerIPIP, routes.Change{Links: links})
	c.settled(in, routes.OwnerIPIP)

	cfg, problems := c.configure(in)
	if cfg == nil {
		return
	}
	v.problems = append(v.problems, problems...)
	v.services = c.served.view()
	if c.config == nil || c.config != cfg && !c.config.Equal(cfg) {
		c.config = cfg
		c.speakers.Set(cfg)
	}
	c.learned.Reach(cfg.Reach)
	c.learned.Workloads(cfg.Workloads)
	c.learned.LeaveNoEncap(c.share.vxlan.NoEncap)
	change := c.learned.Plan(st, in.host)
	change.Cause = c.why
	c.prog.Apply(routes.OwnerBGP, change)
	if in.bgpInSync {
		c.settled(in, routes.OwnerBGP)
	}
}

// settled says that an owner wants nothing more than what it has said, which is so only if the datastore itself was asked.
func (c *controller) settled(in inbox, owner routes.Owner) {
	if in.update.InSync {
		c.prog.InSync(owner)
	}
}

// divide works out what is left to a Felix.
func (c *controller) divide(in inbox, v *view) {
	share, problems := divide(in.update.State, c.besideFelix)
	if share.ipip != c.share.ipip {
		c.learned.Reset()
	}
	c.share = share
	v.problems = append(v.problems, problems...)
	c.claim(in.update.State, v.backend)
	defer func() {
		if c.found != nil && !slices.Equal(problems, c.told) {
			c.told = problems
			c.found(problems)
		}
	}()
	if c.adoptFelix && !slices.Equal(in.host.Within, c.claimed) {
		return // what the picture shows of Felix is what is being taken over; the next one comes with that
	}
	if v.backend != cluster.BackendNone {
		here, event := rival(in.update.State, in.host, &share)
		v.problems = append(v.problems, here...)
		problems = append(problems, event...)
	}
}

// tunnel is the way through IPIP, unless that is left to Felix.
func (c *controller) tunnel(st *cluster.State, self *cluster.Node, h *routes.Host, pool *cluster.Pool, gw netip.Addr) (routes.NextHop, uint32, string, error) {
	if c.share.ipip != "" {
		return routes.NextHop{}, 0, "left to Felix", errors.New(c.share.ipip)
	}
	return ipip.NextHop(st, self, h, pool, gw)
}

// matchSelector evaluates a Calico selector; bgp does not know their grammar.
func matchSelector(selector string, labels map[string]string) (bool, error) {
	s, err := calico.ParseSelector(selector)
	if err != nil {
		return false, err
	}
	return s.Match(labels), nil
}
