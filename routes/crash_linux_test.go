package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// crash is a story in which a process is killed at one of its writes and another begins where it ended.
type crash struct {
	name    string
	prepare func(r *rig) // what the kernel holds before the process starts
	set     func() Change
	// routes is what the kernel must hold of ours in the end; the device with all on it is held to be as in set where that has one.
	routes []string
	// steady are destinations that must not be without a route at any time.
	steady []string
	fewest int // writes that it takes at least; fewer show nothing
}

func crashes() []crash {
	return []crash{
		{name: "first start", prepare: func(r *rig) {}, set: dualSet, routes: dualRoutes(), fewest: 12},
		{name: "change", prepare: formerRun, set: dualSet, routes: dualRoutes(), fewest: 10,
			steady: []string{"10.244.2.0/26", "10.244.0.0/26", "10.9.0.0/26", "2001:db8:1::/64", "2001:db8:2::/122"}},
		{name: "takeover", prepare: leftByCalico, set: dualSet, routes: dualRoutes(), fewest: 12,
			steady: []string{"10.244.2.0/26", "10.244.3.0/26", "10.244.0.0/26", "10.9.0.0/26", "2001:db8:1::/64", "2001:db8:2::/122"}},
		{name: "nothing wanted any more", prepare: formerRun, set: func() Change { return Change{Whole: true, Links: []Link{}} }, fewest: 8},
		{name: "device made anew", prepare: otherDevice, set: dualSet, routes: dualRoutes(), fewest: 9, steady: []string{"10.9.0.0/26", "2001:db8:1::/64"}},
	}
}

// dualSet is a VXLAN set with two remote nodes, and direct routes and blackholes of both families.
func dualSet() Change {
	set := vxlanSet(2, 3)
	set.Routes = append(set.Routes, via("10.9.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7"), blackhole("2001:db8:2::/122"))
	return set
}

func dualRoutes() []string {
	return append(vxlanRoutes(2, 3), direct("10.9.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7"), "blackhole 2001:db8:2::/122 proto 202 metric 1024")
}

// formerRun has a process of ours program another set and stop: node 4 is still there and node 3 not yet, node 2 has another MAC, and
// two destinations lead elsewhere.
func formerRun(r *rig) {
	set := vxlanSet(2, 4)
	set.Neighbours[0].MAC, set.Neighbours[1].MAC = mac(22), mac(22)
	set.Routes = append(set.Routes, via("10.9.0.0/26", "192.0.2.8"), blackhole("10.9.4.0/26"), via("2001:db8:1::/64", "2001:db8::8"), blackhole("2001:db8:2::/122"))
	r.ready(set)
	r.wantOurs(append(vxlanRoutes(2, 4), direct("10.9.0.0/26", "192.0.2.8"), "blackhole 10.9.4.0/26 proto 202 metric 1024",
		direct("2001:db8:1::/64", "2001:db8::8"), "blackhole 2001:db8:2::/122 proto 202 metric 1024")...)
	r.wantTunnel(set)
	r.stop()
}

// leftByCalico is what BIRD and Felix leave.
func leftByCalico(r *rig) {
	r.felixDevice(dualSet())
	for _, k := range []kernel.Route{
		r.left(kernel.ProtoFelix, "10.244.0.0/26", "", "", 0),
		r.left(kernel.ProtoBoot, "10.244.2.0/26", "10.244.2.0", DeviceVXLAN, 0),
		r.left(kernel.ProtoBird, "10.244.3.0/26", "10.244.3.0", DeviceVXLAN, Metric),
		r.left(kernel.ProtoBird, "10.9.0.0/26", "192.0.2.9", "eth0", Metric),
		r.left(kernel.ProtoBird, "2001:db8:1::/64", "2001:db8::9", "eth0", Metric),
		r.left(kernel.ProtoFelix, "2001:db8:2::/122", "", "", Metric),
		r.left(kernel.ProtoBoot, "10.244.77.0/26", "10.244.77.0", DeviceVXLAN, 0),
		r.left(kernel.ProtoBird, "10.9.77.0/26", "192.0.2.77", "eth0", Metric),
	} {
		r.write(kernel.Add, k)
	}
}

// otherDevice is a former run with a device of another VNI.
func otherDevice(r *rig) {
	set := dualSet()
	set.Links[0].VXLAN.VNI = 7
	r.ready(set)
	r.wantTunnel(set)
	r.wantOurs(dualRoutes()...)
	r.stop()
}

// begin starts a Programmer that wants the set, and end holds the kernel to be as it wants it.
func (c *crash) begin(r *rig) {
	r.start(Options{Adopt: Adoption{BIRD: true, Felix: true}})
	r.p.Within(pfx("10.0.0.0/8"), pfx("2001:db8::/32"))
	r.p.Expect(OwnerVXLAN)
	r.apply(c.set())
	r.p.InSync(OwnerVXLAN)
}

func (c *crash) end(r *rig) {
	r.t.Helper()
	if set := c.set(); len(set.Links) > 0 {
		r.wantTunnel(set)
	} else {
		r.eventually(func() error {
			if r.device(DeviceVXLAN) != nil {
				return errors.New("the device is still there")
			}
			return nil
		})
	}
	r.wantOurs(c.routes...) // after the device: by one that is to be made anew they read the same
	r.wantNotOurs(strangersWant())
}

// strangers are routes of others, some of the numbers of BIRD and Felix.
func strangers(r *rig) []kernel.Route {
	return []kernel.Route{r.left(kernel.ProtoStatic, "10.8.0.0/26", "192.0.2.7", "eth0", 0), r.left(kernel.ProtoBird, "172.16.0.0/26", "192.0.2.7", "eth0", Metric),
		r.left(kernel.ProtoFelix, "172.16.1.0/26", "", "", 0)}
}

func strangersWant() []string {
	return []string{"10.8.0.0/26 via 192.0.2.7 dev eth0 proto static onlink", "172.16.0.0/26 via 192.0.2.7 dev eth0 proto bird metric 1024 onlink", "blackhole 172.16.1.0/26 proto 80"}
}

// mortal is the kernel of a process that is killed by SIGKILL just before it makes its last-th write: a route, a neighbour, a link, an
// address or a setting. What comes before it of the same batch is with the kernel.
type mortal struct {
	kernel.Kernel
	mu     sync.Mutex
	last   int
	writes int
}

// share is how many of n writes are made; fewer than n means that death follows.
func (m *mortal) share(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n = min(n, m.last-1-m.writes)
	m.writes += n
	return n
}

func (m *mortal) die() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}

// one is for a write that is alone.
func (m *mortal) one() {
	if m.share(1) == 0 {
		m.die()
	}
}

func (m *mortal) WriteRoutes(ctx context.Context, ops []kernel.RouteOp, failed func(int, error)) error {
	n := m.share(len(ops))
	err := m.Kernel.WriteRoutes(ctx, ops[:n], failed)
	if n < len(ops) {
		m.die()
	}
	return err
}

func (m *mortal) WriteNeighbours(ctx context.Context, ops []kernel.NeighbourOp, failed func(int, error)) error {
	n := m.share(len(ops))
	err := m.Kernel.WriteNeighbours(ctx, ops[:n], failed)
	if n < len(ops) {
		m.die()
	}
	return err
}

func (m *mortal) WriteNexthops(ctx context.Context, ops []kernel.NexthopOp, failed func(int, error)) error {
	n := m.share(len(ops))
	err := m.Kernel.WriteNexthops(ctx, ops[:n], failed)
	if n < len(ops) {
		m.die()
	}
	return err
}

func (m *mortal) CreateLink(ctx context.Context, l kernel.Link) (int, error) {
	m.one()
	return m.Kernel.CreateLink(ctx, l)
}

func (m *mortal) DeleteLink(ctx context.Context, index int) error {
	m.one()
	return m.Kernel.DeleteLink(ctx, index)
}

func (m *mortal) SetLink(ctx context.Context, index, mtu int, mac [6]byte, up bool) error {
	m.one()
	return m.Kernel.SetLink(ctx, index, mtu, mac, up)
}

func (m *mortal) AddAddress(ctx context.Context, a kernel.Address) error {
	m.one()
	return m.Kernel.AddAddress(ctx, a)
}

func (m *mortal) DeleteAddress(ctx context.Context, a kernel.Address) error {
	m.one()
	return m.Kernel.DeleteAddress(ctx, a)
}

func (m *mortal) WriteSysctl(ctx context.Context, name kernel.Sysctl, value int) error {
	m.one()
	return m.Kernel.WriteSysctl(ctx, name, value)
}

// envCrash tells a child of this test its namespace, its story, the write it dies before, and whether routes lead to nexthop objects.
const (
	envCrash  = "CARACAL_TEST_CRASH"
	byObjects = "objects"
)

// TestCrashedProcess is the process that dies. Run by itself it does nothing.
func TestCrashedProcess(t *testing.T) {
	job := strings.Split(os.Getenv(envCrash), "|")
	if len(job) != 4 {
		return // it is started by TestCrashAtEveryWrite
	}
	last, err := strconv.Atoi(job[2])
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, stop: func() {}, byID: job[3] == byObjects}
	m := &mortal{last: last}
	for _, k := range []*kernel.Kernel{&m.Kernel, &r.far} {
		*k, err = kernel.Open(kernel.Options{Namespace: job[0], MuteAdds: k == &m.Kernel})
		r.must(err)
	}
	r.k, r.eth0 = m, r.device("eth0").Index
	for _, c := range crashes() {
		if c.name == job[1] {
			c.begin(r)
			c.end(r)
			r.stop()
			fmt.Printf("survived %d writes\n", m.writes)
			return
		}
	}
	t.Fatalf("no story %q", job[1])
}

// TestCrashAtEveryWrite kills a process by SIGKILL before its first write, its second, and so on to its last, and has another begin there: the
// kernel ends as wanted, what was routed before and after was routed all the time, and nothing of others was touched.
func TestCrashAtEveryWrite(t *testing.T) {
	for _, c := range crashes() {
		for _, how := range []string{"inline", byObjects} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				n, survived := 0, false
				for !survived && !t.Failed() {
					n++
					t.Run(fmt.Sprint("write ", n), func(t *testing.T) { survived = c.play(t, n, how) })
				}
				if n <= c.fewest {
					t.Errorf("the process was killed at %d writes: fewer than %d show nothing", n-1, c.fewest)
				}
				t.Logf("killed at each of %d writes", n-1)
			})
		}
	}
}

// play kills at the n-th write and reports whether the process had fewer.
func (c *crash) play(t *testing.T, n int, how string) (survived bool) {
	r, ns := onKernelNamespace(t)
	r.byID = how == byObjects
	for _, k := range strangers(r) {
		r.write(kernel.Add, k)
	}
	c.prepare(r)
	w := watchGaps(r, c)
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashedProcess$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), envCrash+"="+strings.Join([]string{ns.Path(), c.name, strconv.Itoa(n), how}, "|"))
	out, err := cmd.CombinedOutput()
	killed := cmd.ProcessState != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err != nil && !killed {
		t.Fatalf("%v\n%s", err, out)
	}
	if err == nil && !strings.Contains(string(out), "survived") {
		t.Fatalf("the process did nothing: %s", out)
	}
	moving := r.withoutObject()
	c.begin(r)
	c.end(r)
	w.verdict()
	if made := r.p.Stats().Writes; !killed && made > moving {
		t.Errorf("after a process that ended in peace the next made %d writes, and %d routes were on their way to a nexthop object", made, moving)
		for _, rt := range c.set().Routes {
			t.Log(rt.Dst, r.p.History(rt.Dst))
		}
		t.Log(r.p.HistoryOf(DeviceVXLAN))
	}
	return !killed
}

// withoutObject counts the routes of ours that are still to lead to a nexthop object: on a busy machine a new device may refuse its objects at first,
// and their routes do without until they are tried again.
func (r *rig) withoutObject() (n uint64) {
	for _, v6 := range []bool{false, true} {
		r.must(r.far.ListRoutes(r.t.Context(), v6, func(k *kernel.Route) bool {
			if r.byID && k.Protocol == kernel.ProtoCaracal && k.NexthopID == 0 && len(k.NextHops) > 0 && k.NextHops[0].Gateway.IsValid() {
				n++
			}
			return true
		}))
	}
	return n
}

// gaps watches for destinations without a route, however briefly, and for routes of others that are written.
type gaps struct {
	r      *rig
	events <-chan kernel.Event
	routed map[netip.Prefix]map[kernel.RouteKey]bool
	apart  map[kernel.RouteKey]bool
}

func watchGaps(r *rig, c *crash) *gaps {
	r.t.Helper()
	w := &gaps{r: r, routed: map[netip.Prefix]map[kernel.RouteKey]bool{}, apart: map[kernel.RouteKey]bool{}}
	for _, k := range strangers(r) {
		w.apart[kernel.RouteKey{Dst: k.Dst, Metric: k.Metric}] = true
	}
	for _, dst := range c.steady {
		w.routed[pfx(dst)] = map[kernel.RouteKey]bool{}
	}
	var err error
	w.events, err = r.far.Watch(r.t.Context())
	r.must(err)
	for _, v6 := range []bool{false, true} {
		r.must(r.far.ListRoutes(r.t.Context(), v6, func(k *kernel.Route) bool {
			if keys := w.routed[k.Dst]; keys != nil {
				keys[kernel.RouteKey{Dst: k.Dst, Metric: k.Metric}] = true
			}
			return true
		}))
	}
	for dst, keys := range w.routed {
		if len(keys) == 0 {
			r.t.Fatalf("%s is not routed to begin with", dst)
		}
	}
	return w
}

// verdict looks at all events until now: the end is marked by a route that nobody else writes.
func (w *gaps) verdict() {
	w.r.t.Helper()
	mark := kernel.Route{Dst: marker, Type: kernel.Blackhole, Protocol: kernel.ProtoStatic}
	w.r.write(kernel.Add, mark)
	patience := time.After(5 * time.Second)
	for {
		select {
		case <-patience:
			w.r.t.Fatal("the events have not come")
		case e := <-w.events:
			switch k := (kernel.RouteKey{Dst: e.Route.Dst, Metric: e.Route.Metric}); {
			case e.Kind == kernel.EventLost:
				w.r.t.Fatal("events were lost")
			case e.Kind != kernel.EventRoute:
			case k.Dst == marker:
				return
			case w.apart[k]:
				w.r.t.Errorf("a route of another program was touched: %+v", e.Route)
			case w.routed[k.Dst] == nil:
			case !e.Deleted:
				w.routed[k.Dst][k] = true
			default:
				if delete(w.routed[k.Dst], k); len(w.routed[k.Dst]) == 0 {
					w.r.t.Errorf("for a moment nothing led to %s", k.Dst)
				}
			}
		}
	}
}
