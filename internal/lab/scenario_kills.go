package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/ipam"
	"github.com/caracal-net/caracal/internal/kernel"
)

const (
	// defaultKills is how often Kills kills where nothing else is said.
	defaultKills = 20
	// ghostBlocks come and go in each pool while daemons are killed: batches to be killed in. They are fewer than the safety rails let pass.
	ghostBlocks = 15
	// longestLife is how long a daemon lives at most before it may be killed: most of what it writes it writes before.
	longestLife = time.Second
	// blockBits are the host bits of Calico's default block sizes: 26 of 32, 122 of 128.
	blockBits = 6
	// killsUnchecked is how many kills pass under BGP before the kernels are looked at; sessions take seconds to come back.
	killsUnchecked = 10
)

// kills ends daemons with SIGKILL at random moments while blocks come and go, and starts each again at once.
func kills(ctx context.Context, r *run) error {
	seed := cmp.Or(r.opts.Seed, uint64(time.Now().UnixNano()))
	k := &killing{run: r, rng: rand.New(rand.NewPCG(seed, 0)), want: map[bool]map[string]string{}}
	r.note("seed", "%d", seed)
	err := k.prepare(ctx)
	if err == nil {
		_, err = r.probed(ctx, "of all pairs", r.Endpoints(nil), lossless, func() error { return k.watched(ctx) })
	}
	if k.ghostly {
		err = errors.Join(err, k.toggle(ctx))
	}
	if err == nil {
		err = k.settle(ctx)
	}
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	return nil
}

// killing is the scenario under way.
type killing struct {
	*run
	rng     *rand.Rand
	clients map[string]*ipam.Client // by node
	ghosts  []ghost
	ghostly bool // they are there
	want    map[bool]map[string]string
	steady  map[string][]netip.Prefix // by node: what is routed with the ghosts and without
}

// ghost is a block without addresses that comes and goes.
type ghost struct {
	node  string
	block netip.Prefix
}

// prepare records what every node's kernel holds without the ghosts and with them.
func (k *killing) prepare(ctx context.Context) error {
	if err := k.conjure(); err != nil {
		return err
	}
	if _, err := k.WaitSettled(ctx); err != nil {
		return err
	}
	k.steady = map[string][]netip.Prefix{}
	err := k.eachKernel(func(node string, kn kernel.Kernel) error {
		h, err := holdingsOf(ctx, kn)
		for i := range h.routes {
			k.steady[node] = append(k.steady[node], h.routes[i].Dst)
		}
		if err == nil && len(h.routes) == 0 {
			err = fmt.Errorf("%s has no route of ours: nothing could be missing", node)
		}
		return err
	})
	if err != nil {
		return err
	}
	for range 2 {
		if err := k.record(ctx); err != nil {
			return err
		}
		if err := k.toggle(ctx); err != nil {
			return err
		}
	}
	return k.settle(ctx)
}

// conjure chooses the blocks that come and go, of all nodes in turn, at the upper end of each pool but for its last block.
func (k *killing) conjure() (err error) {
	k.clients = map[string]*ipam.Client{}
	for _, n := range k.Plan.Nodes {
		if k.clients[n.Name], err = k.ipamOf(n.Name); err != nil {
			return err
		}
	}
	for i := range k.Plan.Pools {
		pool := &k.Plan.Pools[i]
		bits := pool.CIDR.Addr().BitLen() - blockBits
		for n := range ghostBlocks {
			k.ghosts = append(k.ghosts, ghost{k.Plan.Nodes[n%len(k.Plan.Nodes)].Name, fromTheEnd(pool.CIDR, bits, n+1)})
		}
	}
	return nil
}

// fromTheEnd is the n-th block from the end of a pool.
func fromTheEnd(pool netip.Prefix, bits, n int) netip.Prefix {
	a := pool.Addr().AsSlice()
	for i := range a {
		if i*8 >= pool.Bits() {
			a[i] = 0xff
		}
	}
	shift := len(a)*8 - bits
	number := (uint32(a[len(a)-2])<<8|uint32(a[len(a)-1]))>>shift - uint32(n)
	number <<= shift
	a[len(a)-2], a[len(a)-1] = byte(number>>8), byte(number)
	last, _ := netip.AddrFromSlice(a)
	return netip.PrefixFrom(last, bits)
}

// toggle brings the ghosts, or takes them away.
func (k *killing) toggle(ctx context.Context) error {
	k.ghostly = !k.ghostly
	return k.ensure(ctx)
}

// ensure has every ghost claimed by its node, or released, as the CNI plugin does it. A daemon that starts meanwhile may take a claim that it
// finds half done to its other end.
func (k *killing) ensure(ctx context.Context) error {
	for _, g := range k.ghosts {
		client := k.clients[g.node]
		err := poll(ctx, time.Millisecond, func() error {
			if k.ghostly {
				_, refused, err := client.ClaimBlocks(ctx, g.block)
				if err == nil && len(refused) > 0 {
					err = fmt.Errorf("another node has it")
				}
				return err
			}
			err := client.ReleaseAffinity(ctx, g.block, true)
			if errors.Is(err, datastore.ErrNotFound) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("block %s of %s: %w", g.block, g.node, err)
		}
	}
	return nil
}

// record waits until every node routes all ghosts, or none, and keeps what its kernel then holds.
func (k *killing) record(ctx context.Context) error {
	want := 0
	if k.ghostly {
		want = len(k.ghosts)
	}
	k.want[k.ghostly] = map[string]string{}
	return k.eachKernel(func(node string, kn kernel.Kernel) error {
		return poll(ctx, 5*time.Millisecond, func() error {
			list, err := ours(ctx, kn, func(r *kernel.Route) bool {
				return slices.ContainsFunc(k.ghosts, func(g ghost) bool { return g.block == r.Dst })
			})
			if err != nil {
				return err
			}
			if len(list) != want {
				return fmt.Errorf("%s routes %d of %d blocks that come and go, want %d", node, len(list), len(k.ghosts), want)
			}
			k.want[k.ghostly][node], err = picture(ctx, kn)
			return err
		})
	})
}

// picture says in words all that a node's kernel holds of ours.
func picture(ctx context.Context, kn kernel.Kernel) (string, error) {
	h, err := holdingsOf(ctx, kn)
	if err != nil {
		return "", err
	}
	lines := h.lines()
	for _, d := range h.devices {
		lines = append(lines, fmt.Sprintf("device %s index %d mtu %d %s", d.Name, d.Index, d.MTU, hardware(d.MAC)))
		for _, a := range h.addrs[d.Name] {
			lines = append(lines, fmt.Sprintf("address %s on %s", a, d.Name))
		}
		for _, n := range h.entries[d.Name] {
			lines = append(lines, fmt.Sprintf("entry %s %s on %s, FDB %t", n.Addr, hardware(n.MAC), d.Name, n.FDB))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// eachKernel lends f a handle on the kernel of each member, one after the other.
func (k *killing) eachKernel(f func(node string, kn kernel.Kernel) error) error {
	for _, n := range k.Plan.Members() {
		if err := k.withKernel(n.Name, func(kn kernel.Kernel) error { return f(n.Name, kn) }); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until every daemon is settled and every kernel as it was recorded.
func (k *killing) settle(ctx context.Context) error {
	if _, err := k.WaitSettled(ctx); err != nil {
		return errors.Join(err, k.why(ctx))
	}
	if err := k.ensure(ctx); err != nil {
		return err
	}
	ensured := time.Now()
	return k.eachKernel(func(node string, kn kernel.Kernel) error {
		return poll(ctx, 5*time.Millisecond, func() error {
			have, err := picture(ctx, kn)
			if want := k.want[k.ghostly][node]; err == nil && have != want {
				err = fmt.Errorf("%s holds\n%s\nwant\n%s", node, have, want)
			}
			if err != nil && time.Since(ensured) > time.Second { // a daemon that was slow to start has claimed one after all: see ensure
				ensured = time.Now()
				err = errors.Join(err, k.ensure(ctx))
			}
			return err
		})
	})
}

// watched kills under the eyes of a witness on each node, with routes of strangers beside ours.
func (k *killing) watched(ctx context.Context) (err error) {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	apart := strangers()
	for i := range k.Plan.Pools { // one of another program inside each pool
		cidr := k.Plan.Pools[i].CIDR
		apart = append(apart, kernel.Route{Dst: fromTheEnd(cidr, cidr.Addr().BitLen()-blockBits, 0), Metric: 1024, Type: kernel.Blackhole, Protocol: kernel.ProtoStatic})
	}
	var all []*witness
	defer func() {
		for _, w := range all {
			err = errors.Join(err, k.deleteRoutes(ctx, w.kernel, apart), w.kernel.Close())
		}
	}()
	for _, n := range k.Plan.Members() {
		if err := k.withKernel(n.Name, func(kn kernel.Kernel) error { return addRoutes(ctx, kn, apart) }); err != nil {
			return err
		}
		w, err := k.watchNode(wctx, n.Name, k.steady[n.Name], apart, nil)
		if err != nil {
			return err
		}
		all = append(all, w)
	}
	if err := k.play(ctx); err != nil {
		return err
	}
	seen := 0
	for _, w := range all {
		err = errors.Join(err, w.verdict(ctx))
		seen += w.seen + w.others
	}
	if err == nil && seen == 0 {
		err = errors.New("no route changed anywhere: nothing was interrupted")
	}
	k.note("events of routes on all nodes", "%d", seen)
	return err
}

func addRoutes(ctx context.Context, k kernel.Kernel, list []kernel.Route) (err error) {
	var ops []kernel.RouteOp
	for i := range list {
		ops = append(ops, kernel.RouteOp{Verb: kernel.Add, Route: &list[i]})
	}
	werr := k.WriteRoutes(ctx, ops, func(_ int, e error) { err = errors.Join(err, e) })
	return errors.Join(werr, err)
}

func (k *killing) play(ctx context.Context) error {
	count := cmp.Or(k.opts.Kills, defaultKills)
	unchecked := killsUnchecked
	if k.Plan.Spec.Backend == cluster.BackendVXLAN {
		unchecked = 1
	}
	began, checks := time.Now(), 0
	for n := 1; n <= count; n++ {
		if err := k.kill(ctx); err != nil {
			return fmt.Errorf("kill %d: %w", n, err)
		}
		if n%unchecked == 0 || n == count {
			checks++
			if err := k.settle(ctx); err != nil {
				return fmt.Errorf("after kill %d: %w", n, err)
			}
		}
	}
	k.note("kills", "%d in %s, and all kernels as wanted after each of %d checks", count, ms(time.Since(began)), checks)
	return nil
}

// kill ends the daemon of some node at some moment, while as often as not the ghosts come or go, and starts it again.
func (k *killing) kill(ctx context.Context) error {
	members := k.Plan.Members()
	u := k.rng.Float64()
	node, moment := members[k.rng.IntN(len(members))].Name, time.Duration(u*u*u*float64(longestLife)) // every other in its first 125 ms
	toggled := make(chan error, 1)
	if k.rng.IntN(2) == 0 {
		go func() { toggled <- k.toggle(ctx) }()
	} else {
		toggled <- nil
	}
	select { // the moment is what is random here; nothing is waited for
	case <-time.After(moment):
	case <-ctx.Done():
	}
	err := k.Stop(ctx, node, syscall.SIGKILL)
	if err == nil {
		err = k.Start(node)
	}
	return errors.Join(err, <-toggled, ctx.Err())
}
