package startup

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// How long the host's addresses must have been quiet before they are believed, and the most that is waited for it: a DHCP client
// that renews takes its address away for a moment, and every node of the cluster would hear of it.
const (
	quiet     = 3 * time.Second
	quietMost = 15 * time.Second
	// firstRetry is after what time a look that failed is repeated, then twice as long each time up to the time of polls: an API server that is back
	// would otherwise find its nodes not ready for a minute.
	firstRetry = time.Second
)

// Monitor keeps our Node's addresses and the file with the workloads' MTU as the host has them. Wake and SetState may be
// called from any goroutine; everything else belongs to Run.
type Monitor struct {
	o    Options
	wake chan struct{}

	mu    sync.Mutex // guards what follows
	state monitored
	err   error

	interfaces *[]calico.NodeInterface // of the Node, nil until it was read
	sized      sized                   // what the MTU was last made from
	notes      []string                // told last
}

// monitored is what the monitor knows of the cluster.
type monitored struct {
	self    *cluster.Node
	pools   []*cluster.Pool
	felix   cluster.FelixConfig
	backend cluster.Backend
}

type sized struct {
	host  []Interface
	own   identity
	pools []*cluster.Pool
	felix cluster.FelixConfig
}

// NewMonitor returns a Monitor. It does nothing before the first SetState.
func NewMonitor(o Options) *Monitor { return &Monitor{o: o, wake: make(chan struct{}, 1)} }

// String names the task.
func (m *Monitor) String() string { return "address monitor" }

// Wake says that the host's interfaces or addresses have changed.
func (m *Monitor) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// SetState says what the cluster is like; the monitor looks if something changed that concerns it.
func (m *Monitor) SetState(st *cluster.State, backend cluster.Backend) {
	next := monitored{self: st.Node(m.o.Settings.Node), pools: st.Pools(), felix: st.Felix(), backend: backend}
	m.mu.Lock()
	was := m.state
	m.state = next
	m.mu.Unlock()
	if !sameSelf(was.self, next.self) || was.backend != next.backend || was.felix != next.felix || !slices.Equal(was.pools, next.pools) {
		m.Wake()
	}
}

func sameSelf(a, b *cluster.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Addr4 == b.Addr4 && a.Addr6 == b.Addr6 && a.ASN == b.ASN
}

// Err returns why the last look did not succeed, nil when it did.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Run is the task. It ends only with ctx: what is wrong is logged, and tried again at the next look.
func (m *Monitor) Run(ctx context.Context) error {
	poll := time.NewTimer(m.o.Settings.Poll)
	defer poll.Stop()
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
			m.calm(ctx)
		case <-poll.C:
		}
		err := m.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		m.report(err)
		if err == nil {
			retry = firstRetry
			poll.Reset(m.o.Settings.Poll)
			continue
		}
		poll.Reset(min(retry, m.o.Settings.Poll))
		retry = min(2*retry, m.o.Settings.Poll)
	}
}

// calm waits until nobody has called Wake for a while.
func (m *Monitor) calm(ctx context.Context) {
	most, still := time.NewTimer(quietMost), time.NewTimer(quiet)
	defer most.Stop()
	defer still.Stop()
	for {
		select {
		case <-m.wake:
			still.Reset(quiet)
		case <-still.C:
			return
		case <-most.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// look compares the host with the Node and writes what differs.
func (m *Monitor) look(ctx context.Context) error {
	m.mu.Lock()
	st := m.state
	m.mu.Unlock()
	if st.self == nil || st.backend == cluster.BackendNone {
		return nil
	}
	h, err := m.o.host(ctx)
	if err != nil {
		return err
	}
	stored := identity{addr4: st.self.Addr4, addr6: st.self.Addr6, asn: st.self.ASN}
	if m.interfaces == nil {
		obj, err := m.o.Store.Get(ctx, calico.KindNode, m.o.Settings.Node)
		if err != nil {
			return err
		}
		m.interfaces = &obj.(*calico.Node).Spec.Interfaces
	}
	stored.interfaces = *m.interfaces
	want, notes, err := m.o.Settings.settle(stored, h)
	m.tell(notes)
	if err != nil {
		return err
	}
	if err := m.o.write(ctx, stored, want); err != nil {
		return err
	}
	m.interfaces = &want.interfaces
	return m.size(ctx, h, want, &st)
}

// size leaves the workloads' MTU on disk if anything changed that it is made from.
func (m *Monitor) size(ctx context.Context, h *Host, self identity, st *monitored) error {
	next := sized{h.Interfaces, self, st.pools, st.felix}
	if reflect.DeepEqual(m.sized, next) {
		return nil
	}
	mtu, err := m.o.mtu(ctx, h.Interfaces, self, st.pools)
	if err != nil {
		return err
	}
	if err := m.o.leaveMTU(mtu); err != nil {
		return err
	}
	m.sized = next
	return nil
}

// tell logs notes that were not told before.
func (m *Monitor) tell(notes []string) {
	for _, n := range notes {
		if !slices.Contains(m.notes, n) {
			m.o.Log.Warn("the node's address", logText, n)
		}
	}
	m.notes = notes
}

// report keeps the last failure and logs a change of it once.
func (m *Monitor) report(err error) {
	m.mu.Lock()
	was := m.err
	m.err = err
	m.mu.Unlock()
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		m.o.Log.Error("the node's addresses could not be brought up to date, trying again", logErr, err)
	case err == nil && was != nil:
		m.o.Log.Info("the node's addresses are up to date again")
	}
}
