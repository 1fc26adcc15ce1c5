package routes

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// The model check: random desired sets of several owners, another program that changes whatever it can reach, interfaces that come and
// go, and a kernel that fails; against a model that is too simple to be wrong. When all is quiet the kernel must hold what the
// model says. Meanwhile an audit of every write (auditedKernel on the Fake, listener on the real kernel) holds that no route of
// another program was touched, and that no route was missing that was wanted all the time.
//
// Environment: CARACAL_TEST_SEED runs that seed alone; CARACAL_TEST_SOAK ("10m") goes on with new seeds for that long.
const (
	seedEnv = "CARACAL_TEST_SEED"
	soakEnv = "CARACAL_TEST_SOAK"
)

// eachSeed runs f with n seeds, with the one of the environment, or until the soak is over.
func eachSeed(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	t.Helper()
	one := func(seed uint64) bool {
		return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("replay: %s=%d go test ./routes -run '%s'", seedEnv, seed, strings.SplitN(t.Name(), "/", 2)[0])
				}
			}()
			f(t, seed)
		})
	}
	if s := os.Getenv(seedEnv); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
		one(seed)
		return
	}
	first := uint64(time.Now().UnixNano()) // new ground every time; the name of the subtest says which
	if s := os.Getenv(soakEnv); s != "" {
		span, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("%s: %v", soakEnv, err)
		}
		i := uint64(0)
		for end := time.Now().Add(span); time.Now().Before(end) && one(first+i); i++ {
			continue
		}
		t.Logf("%d seeds from %d on", i, first)
		return
	}
	for i := range uint64(n) {
		if !one(first + i) {
			return
		}
	}
}

// world is the model and the hand that changes the real thing.
type world struct {
	*rig
	rng    *rand.Rand
	log    []string
	owners []Owner
	wants  map[Owner]map[Key]Route
	links  []Link // the tunnel device of OwnerVXLAN, if any
	neighs map[neighbourKey]Neighbour
	dials  map[Owner][]InterfaceAddress // the addresses that owners wish for
	// theirAddresses are those that the other program has put on workload interfaces.
	theirAddresses map[place]bool
	wires          map[string]bool // eth0, eth1, cali0, cali1: up; absent = no such interface
	cut            map[string]bool // without carrier
	faulty         bool
	source         bool        // sourceAddress is on eth1
	shaky          atomic.Bool // calls of the real kernel fail now and then
	audit          audit
	// settled is called when all is quiet, silent when the kernel drops routes without a word.
	settled, silent func()
}

// audit is what the watching side knows. A key in stay was installed when all was last quiet, and since then has been wanted, and could
// be reached, without a break.
type audit struct {
	mu    sync.Mutex
	stay  map[kernel.RouteKey]bool
	fresh map[kernel.RouteKey]time.Time // foreign routes that came since all was last quiet: when
	// meddled: another program has written objects, or routes that lead to ours, since all was last quiet. The kernel compares nothing when
	// an object is replaced or deleted: who takes one in the moment before is overwritten.
	meddled   bool
	addresses addressAudit
	faults    []string
}

func (a *audit) breach(format string, args ...any) {
	a.faults = append(a.faults, fmt.Sprintf(format, args...))
}

// moved says that a key may go missing from now on, rightly.
func (a *audit) moved(k kernel.RouteKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.stay, k)
}

// shake holds up the audit while the world is changed so that any route may go, until the function it returns is called.
func (w *world) shake() func() {
	w.audit.mu.Lock()
	clear(w.audit.stay)
	w.silent()
	return w.audit.mu.Unlock
}

// shaken says that every key may go missing from now on.
func (a *audit) shaken() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.stay)
}

func newWorld(r *rig, seed uint64) *world {
	w := &world{
		settled: func() {}, silent: func() {},
		rig: r, rng: rand.New(rand.NewPCG(seed, 0)), owners: []Owner{OwnerVXLAN, OwnerBGP, "later"},
		wants: map[Owner]map[Key]Route{}, neighs: map[neighbourKey]Neighbour{}, wires: map[string]bool{"eth0": true, "eth1": true}, cut: map[string]bool{},
		dials: map[Owner][]InterfaceAddress{}, theirAddresses: map[place]bool{},
	}
	w.audit.stay, w.audit.fresh = map[kernel.RouteKey]bool{}, map[kernel.RouteKey]time.Time{}
	for _, o := range w.owners {
		w.wants[o] = map[Key]Route{}
	}
	w.wire("eth1")
	for _, name := range workloadInterfaces {
		w.wires[name] = true
		w.wire(name)
	}
	w.addressesQuiet()
	return w
}

func (w *world) say(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	for _, d := range w.p.Devices() {
		w.log = append(w.log, fmt.Sprintf("device %+v", d))
	}
	w.log = append(w.log, w.addressesKnown()...)
	w.t.Fatalf("%s\nwhat happened:\n  %s\nstatuses\n  %s\nnexthop objects\n  %s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n  "),
		strings.Join(w.statuses(), "\n  "), strings.Join(w.objectsKnown(), "\n  "))
}

// begin starts a Programmer, as after a crash: with no memory, and the owners say again what they want.
func (w *world) begin() {
	w.start(Options{})
	w.p.Expect(w.owners...)
	for _, o := range w.owners {
		w.p.Apply(o, w.whole(o))
	}
	for _, o := range w.owners {
		w.p.InSync(o)
	}
}

// whole is an owner's whole set.
func (w *world) whole(o Owner) Change {
	c := Change{Whole: true, Routes: slices.Collect(maps.Values(w.wants[o])), Addresses: append([]InterfaceAddress{}, w.dials[o]...)}
	if o == OwnerVXLAN {
		c.Links, c.Neighbours = w.links, slices.Collect(maps.Values(w.neighs))
	}
	return c
}

// sourceAddress is one that comes and goes, and that routes name as their source.
var sourceAddress = pfx("198.51.100.1/24")

// open reports whether the model leaves open what becomes of a wish: one that the kernel may refuse or have dropped.
func (w *world) open(k kernel.RouteKey) bool {
	for _, o := range w.owners {
		r, ok := w.wants[o][Key{Dst: k.Dst, Metric: k.Metric}]
		if ok && r.Unroutable == "" {
			return r.Src.IsValid() && !w.source
		}
	}
	return false
}

// held reports whether a route that nobody wants may be there: while one to its destination that is wanted may be refused.
func (w *world) held(k kernel.RouteKey) bool {
	for _, o := range w.owners {
		for other := range w.wants[o] {
			if other.Dst == k.Dst && other.Metric != k.Metric && w.open(kernel.RouteKey{Dst: other.Dst, Metric: other.Metric}) {
				return true
			}
		}
	}
	return false
}

// up reports whether routes by a device can be installed.
func (w *world) up(device string) bool {
	if device == DeviceVXLAN {
		_, parent := w.wires["eth0"]
		return parent && len(w.links) > 0
	}
	return w.wires[device]
}

// expected is what the kernel must hold of ours: for each key the route of the strongest owner who knows a way, by the
// interfaces that are up.
func (w *world) expected() map[kernel.RouteKey]string {
	all := map[kernel.RouteKey]string{}
	for _, o := range slices.Backward(w.owners) {
		for k, r := range w.wants[o] {
			if r.Unroutable != "" {
				continue
			}
			key := kernel.RouteKey{Dst: k.Dst, Metric: k.Metric}
			delete(all, key)
			var hops []string
			for _, h := range w.reached(r.NextHops) {
				hops = append(hops, fmt.Sprintf("%s %s %v", h.Gateway, h.Device, h.Onlink))
			}
			if len(hops) > 0 || len(r.NextHops) == 0 {
				all[key] = spell(r.Type, r.MTU, r.Src, hops)
			}
		}
	}
	return all
}

func spell(typ kernel.RouteType, mtu uint32, src netip.Addr, hops []string) string {
	slices.Sort(hops)
	return fmt.Sprintf("type %d mtu %d src %s %s", typ, mtu, src, strings.Join(hops, ", "))
}

// table is what the kernel holds in truth.
type table struct {
	ours    map[kernel.RouteKey][]string
	foreign map[kernel.RouteKey][]kernel.Route
	n       int // foreign ones
}

func (w *world) table() table {
	w.t.Helper()
	links, err := w.far.ListLinks(w.t.Context())
	w.must(err)
	names := map[int]string{}
	for _, l := range links {
		names[l.Index] = l.Name
	}
	t := table{map[kernel.RouteKey][]string{}, map[kernel.RouteKey][]kernel.Route{}, 0}
	resolve := w.resolver()
	see := func(r *kernel.Route) bool {
		k := kernel.RouteKey{Dst: r.Dst, Metric: r.Metric, TOS: r.TOS}
		if r.Protocol != kernel.ProtoCaracal {
			c := *r
			c.NextHops = slices.Clone(r.NextHops)
			t.foreign[k] = append(t.foreign[k], c)
			t.n++
			return true
		}
		resolve(r)
		var hops []string
		for _, h := range r.NextHops {
			hops = append(hops, fmt.Sprintf("%s %s %v", h.Gateway, names[h.Link], h.Onlink))
		}
		t.ours[k] = append(t.ours[k], spell(r.Type, r.MTU, r.Src, hops))
		return true
	}
	for _, v6 := range []bool{false, true} {
		for {
			err := w.far.ListRoutes(w.t.Context(), v6, see)
			if err == nil {
				break
			}
			if !errors.Is(err, kernel.ErrInterrupted) {
				w.must(err)
			}
			t = table{map[kernel.RouteKey][]string{}, map[kernel.RouteKey][]kernel.Route{}, 0}
			v6 = false
		}
	}
	return t
}

// agrees compares the kernel with the model, and the statuses with both.
func (w *world) agrees() error {
	want, have := w.expected(), w.table()
	for k, lines := range have.ours {
		if len(lines) > 1 {
			return fmt.Errorf("%v: two routes of ours: %q", k, lines)
		}
		if want[k] != lines[0] && !w.open(k) && !(want[k] == "" && w.held(k)) {
			return fmt.Errorf("%v: the kernel holds %q, the model %q", k, lines[0], want[k])
		}
	}
	for k, line := range want {
		if len(have.ours[k]) == 0 && len(have.foreign[k]) == 0 && !w.open(k) {
			return fmt.Errorf("%v: the kernel holds nothing, the model %q", k, line)
		}
	}
	if n := w.p.Stats().Foreign; n != have.n && w.fake != nil {
		return fmt.Errorf("the mirror has %d foreign routes, the kernel %d: %s", n, have.n, w.foreignDifference(have))
	}
	if err := w.statusesAgree(want, have); err != nil {
		return err
	}
	if err := w.addressesAgree(); err != nil {
		return err
	}
	return w.tunnelAgrees()
}

// foreignDifference is what of others' routes only the mirror, or only the kernel has.
func (w *world) foreignDifference(have table) string {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	var lines []string
	for k, f := range w.p.foreign.byKey {
		if len(have.foreign[k]) == 0 {
			lines = append(lines, fmt.Sprintf("only the mirror: %v %+v", k, *f))
		}
	}
	for k, list := range have.foreign {
		if w.p.foreign.at(k) == nil {
			lines = append(lines, fmt.Sprintf("only the kernel: %v %+v", k, list))
		}
	}
	return strings.Join(lines, "; ")
}

func (w *world) statusesAgree(want map[kernel.RouteKey]string, have table) error {
	seen := 0
	for _, s := range w.p.Snapshot(nil) {
		k := kernel.RouteKey{Dst: s.Route.Dst, Metric: s.Route.Metric}
		o := s.Outcome
		if o == Lost || o == Unroutable {
			continue
		}
		seen++
		if o == Failed && (w.open(k) || w.held(k)) || o == Kept && w.held(k) {
			continue
		}
		switch {
		case o == Installed && len(have.ours[k]) == 0, o == Kept, o == Failed, o == Waiting,
			o == NoDevice && want[k] != "", o == Foreign && len(have.foreign[k]) == 0:
			return fmt.Errorf("%v: outcome %s (%s), the kernel holds %q, foreign %v, the model %q", k, o, s.Detail, have.ours[k], have.foreign[k], want[k])
		}
	}
	if seen < len(want) {
		return fmt.Errorf("%d routes have a status, the model has %d", seen, len(want))
	}
	return nil
}

// tunnelAgrees does the same for the device with its addresses, neighbours and FDB entries.
func (w *world) tunnelAgrees() error {
	if !w.up(DeviceVXLAN) {
		if l := w.device(DeviceVXLAN); l != nil {
			return fmt.Errorf("device %s is there", l.Name)
		}
		return nil
	}
	c := Change{Links: w.links, Neighbours: slices.Collect(maps.Values(w.neighs))}
	return w.rig.tunnel(c)
}

// quiet lets everything come to rest and compares.
func (w *world) quiet() {
	w.t.Helper()
	if w.fake != nil {
		w.fake.ClearFaults()
	}
	w.shaky.Store(false)
	w.patient, w.faulty = true, false
	w.say("-- quiet")
	w.settle(w.agrees)
	w.settled()
	want := w.expected()
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	if len(w.audit.faults) > 0 {
		w.failf("%s", strings.Join(w.audit.faults, "\n"))
	}
	have := w.table()
	clear(w.audit.fresh)
	clear(w.audit.stay)
	w.audit.meddled = false
	w.addressesQuiet()
	for k := range want {
		if len(have.ours[k]) == 1 && len(have.foreign[k]) == 0 && !w.open(k) {
			w.audit.stay[k] = true
		}
	}
}

// settle waits until a condition holds: for every back-off and pause on the Fake, where time is free.
func (w *world) settle(condition func() error) {
	w.t.Helper()
	w.wait()
	err := condition()
	if w.fake != nil {
		for range 20 {
			if err == nil {
				return
			}
			time.Sleep(retryMost)
			w.wait()
			err = condition()
		}
	} else {
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); err = condition() {
			time.Sleep(2 * time.Millisecond)
		}
	}
	if err != nil {
		w.failf("%v", err)
	}
}

// play is one run: turns of some operations, each ended by quiet.
func (w *world) play(turns, operations int) {
	w.begin()
	all := w.operations()
	total := 0
	for _, o := range all {
		total += o.weight
	}
	for range turns {
		for range w.rng.IntN(operations) + 1 {
			n := w.rng.IntN(total)
			for _, o := range all {
				if n -= o.weight; n < 0 {
					o.run()
					break
				}
			}
			if w.rng.IntN(3) == 0 {
				w.wait()
			}
		}
		w.quiet()
	}
}

func (w *world) prefix() netip.Prefix {
	n := w.rng.IntN(18)
	if n < 12 {
		return pfx(fmt.Sprintf("10.1.%d.0/26", n))
	}
	return pfx(fmt.Sprintf("2001:db8:%d::/64", n))
}

func TestModelOnTheFake(t *testing.T) {
	eachSeed(t, 200, func(t *testing.T, seed uint64) {
		bubble(t, func(r *rig) {
			w := newWorld(r, seed)
			w.k = &auditedKernel{Kernel: w.fake, w: w}
			if seed%2 == 0 {
				w.fake.FlushLate(time.Millisecond)
			}
			w.play(6, 25)
		})
	})
}

// honest are the faults after which the kernel tells the truth.
func (w *world) honest() []kerneltest.Fault {
	all := kerneltest.Faults()
	if w.byID {
		all = append(all, kerneltest.NexthopFaults()...)
	}
	return slices.DeleteFunc(all, lying)
}
