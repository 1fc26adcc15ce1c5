package startup

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// watched is a monitor at work in a synctest bubble, on a machine whose interfaces a test changes.
type watched struct {
	*Monitor
	t     *testing.T
	store *datastoretest.Memory
	calls *datastoretest.Faulty // the monitor's own client

	mu   sync.Mutex
	list []Interface
	gets int
}

func watch(t *testing.T, store *datastoretest.Memory, plan datastoretest.Plan, env ...string) *watched {
	w := &watched{t: t, store: store, list: machine()}
	if plan == nil {
		plan = func(int, string, calico.Kind) datastoretest.Fault { return datastoretest.NoFault }
	}
	w.calls = datastoretest.NewFaulty(store, plan)
	o := start(t, counted{w.calls, w}, env...)
	o.Interfaces = func(context.Context) ([]Interface, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.list, nil
	}
	w.Monitor = NewMonitor(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// counted counts the reads of a store.
type counted struct {
	datastore.Store
	w *watched
}

func (c counted) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	c.w.mu.Lock()
	c.w.gets++
	c.w.mu.Unlock()
	return c.Store.Get(ctx, kind, name)
}

func (w *watched) set(list ...Interface) {
	w.mu.Lock()
	w.list = list
	w.mu.Unlock()
}

// deliver hands the monitor the state as a Watcher would.
func (w *watched) deliver(backend cluster.Backend) {
	var o cluster.Objects
	objects := w.store.Objects()
	for _, obj := range objects {
		switch x := obj.(type) {
		case *calico.Node:
			n, _ := x.ClusterNode()
			o.Nodes = append(o.Nodes, n)
		case *calico.IPPool:
			p, _ := x.Pool()
			o.Pools = append(o.Pools, p)
		}
	}
	w.SetState(cluster.Build(o), backend)
}

func (w *watched) addr() string {
	b := get[*calico.Node](w.t, w.store, calico.KindNode, "node-a").Spec.BGP
	if b == nil {
		return ""
	}
	return b.IPv4Address
}

func (w *watched) want(what, addr string) {
	w.t.Helper()
	if got := w.addr(); got != addr {
		w.t.Errorf("%s: the Node has %q, want %q", what, got, addr)
	}
}

// after lets time pass and everything come to rest.
func after(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

func TestMonitorFollowsTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, datastoretest.NewMemory(node("node-a", "203.0.113.7/26", "")), nil, "IP=autodetect")
		after(10 * time.Minute)
		w.want("without a state", "203.0.113.7/26")
		if w.gets != 0 {
			t.Errorf("%d reads before the first state", w.gets)
		}
		w.set(on("eth0", "192.0.2.50/24"))
		w.deliver(cluster.BackendBird)
		after(quiet)
		w.want("first state", "192.0.2.50/24")
		w.deliver(cluster.BackendBird)

		w.set(on("eth0", "192.0.2.51/24"))
		w.Wake()
		after(quiet - time.Second)
		w.want("not yet quiet", "192.0.2.50/24")
		after(time.Second)
		w.want("quiet", "192.0.2.51/24")
		w.deliver(cluster.BackendBird)

		w.set(on("eth0", "192.0.2.52/24")) // nobody wakes it
		after(2 * time.Minute)
		w.want("period", "192.0.2.52/24")
		w.deliver(cluster.BackendBird)
		after(quiet)

		reads, writes := w.gets, w.calls.Writes()
		for range 30 {
			w.Wake()
			w.deliver(cluster.BackendBird)
			after(time.Minute)
		}
		if w.gets != reads || w.calls.Writes() != writes {
			t.Errorf("without news: %d reads and %d writes", w.gets-reads, w.calls.Writes()-writes)
		}
	})
}

// TestMonitorFlap: an address that goes away and comes back is no news, however long the flapping lasts.
func TestMonitorFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, datastoretest.NewMemory(node("node-a", "192.0.2.7/24", "")), nil, "IP=autodetect")
		whole := []Interface{on("eth1", "203.0.113.7/26"), on("eth0", "192.0.2.7/24")}
		w.set(whole...)
		w.deliver(cluster.BackendBird)
		after(quiet)
		writes := w.calls.Writes() // the interfaces
		w.set(whole[0])
		w.Wake()
		after(quiet / 2)
		w.set(whole...)
		w.Wake()
		after(quiet)
		if w.calls.Writes() != writes {
			t.Error("a renewal of a lease was written")
		}
		w.set(whole[0]) // a storm of events ends the waiting after a while
		for range 2 * int(quietMost/time.Second) {
			w.Wake()
			after(time.Second)
		}
		w.want("storm", "203.0.113.7/26")
	})
}

func TestMonitorKeepsTheLastGoodAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := datastoretest.NewMemory(node("node-a", "192.0.2.7/24", ""), node("node-b", "192.0.2.8/24", ""))
		w := watch(t, store, nil, "IP=autodetect")
		w.set(on("eth0", "192.0.2.7/24"))
		w.deliver(cluster.BackendBird)
		after(quiet)
		w.set(on("lo", "127.0.0.1/8"))
		after(2 * time.Minute)
		w.want("no address", "192.0.2.7/24")
		if w.Err() != nil {
			t.Errorf("a kept address is an error: %v", w.Err())
		}

		// Two machines swapped their addresses: both let go of the old one, and then both get theirs.
		w.set(on("eth0", "192.0.2.8/24"))
		after(2 * time.Minute)
		w.want("another node's address", "")
		if err := w.Err(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "node-b") {
			t.Errorf("error %v", err)
		}
		w.deliver(cluster.BackendBird)
		moved := netip.MustParsePrefix("192.0.2.7/24")
		if err := store.PatchNode(t.Context(), "node-b", datastore.NodePatch{Addr4: &moved}); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Minute)
		w.want("the other node has moved", "192.0.2.8/24")
		if w.Err() != nil {
			t.Errorf("error %v", w.Err())
		}
	})
}

func TestMonitorBackendNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, datastoretest.NewMemory(node("node-a", "192.0.2.99/24", "")), nil, "IP=autodetect")
		w.deliver(cluster.BackendNone)
		after(10 * time.Minute)
		w.want("none", "192.0.2.99/24")
		w.deliver(cluster.BackendVXLAN)
		after(quiet)
		w.want("vxlan", "203.0.113.7/26")
	})
}

// TestMonitorRepairs: what somebody else did to our Node is mended as soon as it is seen; a datastore that fails is tried again.
func TestMonitorRepairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, datastoretest.NewMemory(node("node-a", "", "")), datastoretest.At(1, datastoretest.Refuse), "IP=autodetect", "AS=64513")
		w.deliver(cluster.BackendBird)
		after(quiet)
		w.want("refused", "")
		if w.Err() == nil || w.calls.Fired() != 1 {
			t.Errorf("error %v, %d faults", w.Err(), w.calls.Fired())
		}
		after(firstRetry)
		w.want("second try", "203.0.113.7/26")
		w.deliver(cluster.BackendBird)
		after(quiet)
		other, asn := netip.MustParsePrefix("198.51.100.1/24"), uint32(1)
		if err := w.store.PatchNode(t.Context(), "node-a", datastore.NodePatch{Addr4: &other, ASN: &asn}); err != nil {
			t.Fatal(err)
		}
		w.deliver(cluster.BackendBird)
		after(quiet)
		w.want("somebody else's", "203.0.113.7/26")
		number := func(what string) {
			t.Helper()
			if got := *get[*calico.Node](t, w.store, calico.KindNode, "node-a").Spec.BGP.ASNumber; got != 64513 {
				t.Errorf("%s: AS %d", what, got)
			}
		}
		number("with the address")
		w.deliver(cluster.BackendBird)
		after(quiet)
		if err := w.store.PatchNode(t.Context(), "node-a", datastore.NodePatch{ASN: &asn}); err != nil {
			t.Fatal(err)
		}
		w.deliver(cluster.BackendBird)
		after(quiet)
		number("alone")
	})
}

func TestMonitorLeavesTheMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, datastoretest.NewMemory(node("node-a", "203.0.113.7/26", "")), nil, "IP=autodetect")
		mtu := func(want string) {
			t.Helper()
			after(quiet)
			if got := read(t, w.o.Settings.MTUFile); got != want {
				t.Errorf("MTU %q, want %s", got, want)
			}
		}
		w.deliver(cluster.BackendBird)
		mtu("1500")
		p := pool("p", "10.0.0.0/16")
		p.Spec.VXLANMode = "Always"
		w.store.MustCreate(t, p)
		w.deliver(cluster.BackendBird)
		mtu("1450")
		jumbo := on("eth0", "192.0.2.7/24")
		jumbo.MTU = 9000
		w.set(jumbo)
		w.Wake()
		mtu("8950")
	})
}
