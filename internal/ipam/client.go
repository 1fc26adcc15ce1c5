package ipam

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// The outcomes a caller may want to tell apart.
var (
	// ErrNoPool: no pool can be used for what was asked.
	ErrNoPool = errors.New("no usable pool")
	// ErrFull: no address is free in the pools.
	ErrFull = errors.New("no free address")
	// ErrBlockLimit: the node owns as many blocks as it may.
	ErrBlockLimit = errors.New("the node has as many blocks as it may")
	// ErrClaimed: the block belongs to another host, or to none.
	ErrClaimed = errors.New("the block is not this node's")
	// ErrNotEmpty: addresses of the block are in use.
	ErrNotEmpty = errors.New("the block has addresses in use")
	// ErrInUse: the address is assigned already.
	ErrInUse = errors.New("the address is in use")
	// ErrNotHeld: the address is held by somebody else than the caller says.
	ErrNotHeld = errors.New("the address is not held as said")
	// ErrBusy: every try met another writer.
	ErrBusy = errors.New("too many concurrent writers")
)

// Use is what an address is for (IPPool.spec.allowedUses).
type Use string

// The uses.
const (
	Workload Use = "Workload"
	Tunnel   Use = "Tunnel"
)

const (
	tries        = 100                   // writes of one step against other writers, Calico's datastoreRetries
	longestPause = 50 * time.Millisecond // between two tries
	blockLimit   = 20                    // blocks of one node and family, where the configuration sets none
	reclaimAge   = time.Minute           // for which an empty block is left to its owner, Calico's EmptyBlockMinReclaimAge
	undoTime     = 10 * time.Second      // to take back a step after the caller's context ended
)

// Log keys.
const (
	keyBlock  = "block"
	keyAddr   = "address"
	keyBefore = "before"
	keyTunnel = "tunnel"
	keyErr    = "err"
)

// Client claims blocks and assigns addresses for one node. It may be used from any number of goroutines. A node should
// have one Client in a process: EnsureTunnelAddresses of one Client runs one at a time.
type Client struct {
	Store datastore.Store
	Node  string
	Log   *slog.Logger // nil = silent
	// Known, if it is set, returns the blocks of other nodes as they were last seen, by whoever watches the datastore; nil where nobody has yet.
	// With it a free block is found without reading all blocks of the cluster.
	Known func() iter.Seq[netip.Prefix]

	tunnels sync.Mutex // held by EnsureTunnelAddresses
	sound   bool       // nothing has gone wrong since the last Repair; guarded by tunnels
}

func (c *Client) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// settings are what an operation reads once, at its start.
type settings struct {
	strict   bool // never an address of another node's block
	claims   bool // new blocks may be claimed
	limit    int  // blocks of one node and family
	cooldown time.Duration
}

// operation is one call of a Client's method: the settings it runs under and the pools, read when first needed.
type operation struct {
	*Client
	settings
	pools []*cluster.Pool
	// unclear are the pools with a problem: what they would ask for, as somebody meant them, nobody can say.
	unclear []*calico.IPPool
	node    *calico.Node
}

// begin reads the settings. Without an IPAMConfiguration Calico's defaults hold (reference 3.4).
func (c *Client) begin(ctx context.Context) (*operation, error) {
	o := &operation{Client: c, settings: settings{claims: true, limit: blockLimit}}
	cfg, err := fetch[*calico.IPAMConfiguration](ctx, c, calico.KindIPAMConfiguration, calico.DefaultName)
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		return o, nil
	case err != nil:
		return nil, err
	}
	o.strict = cfg.Spec.StrictAffinity
	if cfg.Spec.AutoAllocateBlocks != nil {
		o.claims = *cfg.Spec.AutoAllocateBlocks
	}
	if cfg.Spec.MaxBlocksPerHost > 0 {
		o.limit = cfg.Spec.MaxBlocksPerHost
	}
	o.cooldown = time.Duration(cfg.Spec.IPCooldownSeconds) * time.Second
	return o, nil
}

// retry calls step until it returns anything but a conflict. The pauses grow and are random, so that a crowd of
// writers of one object thins out.
func retry(ctx context.Context, what string, step func() error) error {
	var err error
	for i := range tries {
		if err = step(); !errors.Is(err, datastore.ErrConflict) {
			return err
		}
		if err := pause(ctx, i); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	// %v: an outer loop must not take this for one more conflict and try a hundred times a hundred.
	return fmt.Errorf("%s: %w, gave up after %d tries: %v", what, ErrBusy, tries, err)
}

// pause waits before the try after the i-th.
func pause(ctx context.Context, i int) error {
	most := min(time.Millisecond<<min(i, 10), longestPause)
	timer := time.NewTimer(rand.N(most))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// undo returns a context for taking back a half-done step, which must not fail because the caller gave up.
func undo(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoTime)
}

// raced turns "exists" and "not found" into a conflict: what was read just now is no longer so, look again.
func raced(err error) error {
	if errors.Is(err, datastore.ErrExists) || errors.Is(err, datastore.ErrNotFound) {
		return fmt.Errorf("%w: %w", datastore.ErrConflict, err)
	}
	return err
}
