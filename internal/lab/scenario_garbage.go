package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/netns"
)

// The peer that speaks garbage lives on the router at an address and port of its own, for in mode none a daemon is there
// too. Its AS is of those for documentation (RFC 5398).
const (
	garblerName   = "garbler"
	garblerPort   = 1179
	garblerASN    = 64499
	garblerOffset = 249 // above the router's own address, where no node is
)

// garbage configures a peer that never speaks sense, lets it and strangers talk to every node, and checks that no session of
// the mesh has noticed.
func garbage(ctx context.Context, r *run) error {
	store, err := r.Store()
	if err != nil {
		return err
	}
	usual := r.Plan.Spec.Backend
	if usual == cluster.BackendBird {
		return r.withstand(ctx, store)
	}
	// Only the BGP backend has a port to speak to.
	if err := r.switchBackend(ctx, store, usual, cluster.BackendBird); err != nil {
		return err
	}
	err = r.withstand(ctx, store)
	return errors.Join(err, r.switchBackend(ctx, store, cluster.BackendBird, usual))
}

func (r *run) withstand(ctx context.Context, store datastore.Store) error {
	before, err := r.meshSince(ctx)
	if err != nil {
		return err
	}
	g, err := r.startGarbler()
	if err != nil {
		return err
	}
	_, err = r.probed(ctx, "of all pairs", r.Endpoints(nil), lossless, func() error { return r.suffer(ctx, store, g) })
	if err = errors.Join(err, g.stop()); err != nil {
		return err
	}
	after, err := r.meshSince(ctx)
	if err != nil {
		return err
	}
	for session, since := range before {
		if after[session] != since {
			return fmt.Errorf("session %s was %s and is %s now", session, since, after[session])
		}
	}
	r.note("mesh sessions and processes that stayed the same", "%d", len(before))
	return nil
}

// suffer configures the garbage peer, lets everybody be spoken to, and takes the peer away again.
func (r *run) suffer(ctx context.Context, store datastore.Store, g *garbler) error {
	peer := &calico.BGPPeer{ObjectMeta: calico.ObjectMeta{Name: garblerName}, Spec: calico.BGPPeerSpec{PeerIP: g.addr.String(), ASNumber: garblerASN}}
	if _, err := store.Create(ctx, peer); err != nil {
		return err
	}
	sent, err := r.dialIn(ctx, g)
	if err == nil {
		r.note("garbage sent by those who dialled in", "%d connections", sent)
		err = poll(ctx, 20*time.Millisecond, func() error { return g.heardAll(len(r.Plan.Members())) })
	}
	if err != nil {
		return errors.Join(err, r.why(ctx), remove(ctx, store, peer))
	}
	r.note("garbage answered to the nodes' own calls", "%d connections", g.answered())
	return remove(ctx, store, peer)
}

// meshSince returns for each session between members since when it is established, and each daemon's process.
func (r *run) meshSince(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range r.Plan.Members() {
		out["process of "+n.Name] = fmt.Sprint(r.PID(n.Name))
		peers, err := r.Peers(ctx, n.Name)
		if err != nil {
			return nil, err
		}
		for _, p := range peers {
			if p.GetNode() != "" {
				out[n.Name+" "+p.GetName()] = p.GetState().String() + p.GetSince().AsTime().String()
			}
		}
	}
	return out, nil
}

// dialIn sends every kind of garbage to every node, from the configured peer's address and from a workload's.
func (r *run) dialIn(ctx context.Context, g *garbler) (sent int, err error) {
	for _, n := range r.Plan.Nodes {
		to := netip.AddrPortFrom(r.underlay(&n).Addr(), bgpPort)
		callers := map[string]net.Addr{
			r.Plan.Router.NS:  net.TCPAddrFromAddrPort(netip.AddrPortFrom(g.addr.Addr(), 0)),
			n.Workloads[0].NS: nil,
		}
		for from, as := range callers {
			for _, text := range drivel() {
				err := netns.NS{Name: from}.Do(func() error {
					d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: as}
					conn, err := d.DialContext(ctx, "tcp", to.String())
					if err != nil {
						return err
					}
					_, _ = conn.Write(text) // whether it is still listened to is the daemon's choice
					return conn.Close()
				})
				if err != nil {
					return sent, fmt.Errorf("dial the BGP port of %s: %w", n.Name, err)
				}
				sent++
			}
		}
	}
	return sent, nil
}

// underlay returns the node's address that its sessions run on.
func (r *run) underlay(n *Node) netip.Prefix {
	if r.Plan.Spec.Family.Has(cluster.IPv4) {
		return n.Addr4
	}
	return n.Addr6
}

// garbler answers calls with garbage.
type garbler struct {
	addr    netip.AddrPort
	home    netns.NS
	address string // as ip(8) takes it
	l       net.Listener
	wg      sync.WaitGroup

	mu    sync.Mutex
	calls map[netip.Addr]int // by caller
}

func (r *run) startGarbler() (*garbler, error) {
	addr := host(r.underlay(&r.Plan.Router), garblerOffset)
	g := &garbler{addr: netip.AddrPortFrom(addr.Addr(), garblerPort), calls: map[netip.Addr]int{}}
	g.home = netns.NS{Name: r.Plan.Router.NS}
	g.address = fmt.Sprintf("%s dev %s", addr, r.Plan.Subnets[r.Plan.Router.Subnet].Name)
	nodad := "" // an option of IPv6 alone
	if addr.Addr().Is6() {
		nodad = " nodad"
	}
	if err := batch(g.home, "address add "+g.address+nodad+"\n"); err != nil {
		return nil, fmt.Errorf("garbage peer: %w", err)
	}
	err := g.home.Do(func() (err error) {
		g.l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(g.addr))
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("garbage peer: %w", err), g.moveOut())
	}
	g.wg.Go(g.serve)
	return g, nil
}

// moveOut takes the peer's address away again.
func (g *garbler) moveOut() error { return batch(g.home, "address del "+g.address+"\n") }

func (g *garbler) serve() {
	for {
		conn, err := g.l.Accept()
		if err != nil {
			return
		}
		g.wg.Go(func() { g.talk(conn) })
	}
}

// talk says the most poisonous thing to each caller first: a correct opening, then a bad UPDATE.
func (g *garbler) talk(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	caller := from.Addr().Unmap()
	g.mu.Lock()
	n := g.calls[caller]
	g.mu.Unlock()
	all := drivel()
	_, err = conn.Write(all[n%len(all)])
	buf := make([]byte, 4096)
	for err == nil { // until the node has had enough
		_, err = conn.Read(buf)
	}
	g.mu.Lock()
	g.calls[caller]++
	g.mu.Unlock()
}

func (g *garbler) heardAll(members int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.calls) < members {
		return fmt.Errorf("%d of %d nodes have called the garbage peer", len(g.calls), members)
	}
	return nil
}

func (g *garbler) answered() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		n += c
	}
	return n
}

func (g *garbler) stop() error {
	_ = g.l.Close()
	g.wg.Wait()
	return g.moveOut()
}

// BGP message types (RFC 4271 section 4.1).
const (
	bgpOpenType      = 1
	bgpUpdateType    = 2
	bgpKeepaliveType = 4
)

// drivel returns streams of bytes no BGP speaker should take, worst first.
func drivel() [][]byte {
	noise := make([]byte, 4096)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(noise)
	hello := append(bgpMessage(bgpOpenType, openBody()), bgpMessage(bgpKeepaliveType, nil)...)
	after := func(m []byte) []byte { return append(append([]byte(nil), hello...), m...) }
	return [][]byte{
		// ORIGIN, NEXT_HOP, AS4_PATH and only then AS_PATH: the order that brought GoBGP v3 down (decision 001).
		after(bgpMessage(bgpUpdateType, updateBody(
			[]byte{0x40, 1, 1, 0}, []byte{0x40, 3, 4, 192, 0, 2, 1}, []byte{0xc0, 17, 6, 2, 1, 0, 0, 0xfb, 0xf3}, []byte{0x40, 2, 4, 2, 1, 0xfb, 0xf3}))),
		// The advisories of 2026 against GoBGP v4: wrong flags (GHSA-p3w2-64xm-833j), an unknown well-known attribute (GHSA-7235-89m6-f4px),
		// AS4_PATH of one octet (GHSA-8rxh-r2p6-7f2q), NEXT_HOP of none (GHSA-4p9m-8gc4-rw2h), withdrawn routes without end (GHSA-pw7p-7fqv-hpj8).
		after(bgpMessage(bgpUpdateType, updateBody([]byte{0, 1, 1, 0}, []byte{0x40, 3, 4, 192, 0, 2, 1}, []byte{0x40, 2, 4, 2, 1, 0xfb, 0xf3}))),
		after(bgpMessage(bgpUpdateType, updateBody([]byte{0x40, 250, 1, 2}))),
		after(bgpMessage(bgpUpdateType, []byte{0, 0, 0, 11, 0x40, 17, 1, 2, 0x40, 2, 4, 0xff, 0xff, 0xde, 0xad})),
		after(bgpMessage(bgpUpdateType, updateBody([]byte{0x40, 1, 1, 0}, []byte{0x40, 3, 0}, []byte{0x40, 2, 4, 2, 1, 0xfb, 0xf3}))),
		after(bgpMessage(bgpUpdateType, []byte{0xff, 0xff, 0, 0})),
		after(bgpMessage(bgpUpdateType, updateBody([]byte{0x40, 1, 1, 0}, []byte{0x40, 2, 4, 2, 1, 0xfb, 0xf3}))), // no NEXT_HOP
		after(bgpMessage(bgpUpdateType, []byte{0, 0, 0xff, 0xff, 0x40, 1})),                                       // attributes longer than the message
		after(bgpMessage(bgpUpdateType, updateBody([]byte{0x40, 3, 200, 1}))),                                     // attribute longer than the attributes
		after(noise),
		noise,
		bgpMessage(bgpOpenType, []byte{3, 0, 0}), // version 3, and cut off
		append(bgpMessage(bgpOpenType, openBody())[:16], 0xff, 0xff, 1),
		bgpMessage(99, noise[:100]),
		{},
	}
}

// bgpMessage frames a body (RFC 4271 section 4.1).
func bgpMessage(kind byte, body []byte) []byte {
	m := make([]byte, 19, 19+len(body))
	for i := range 16 {
		m[i] = 0xff
	}
	binary.BigEndian.PutUint16(m[16:], uint16(19+len(body)))
	m[18] = kind
	return append(m, body...)
}

// openBody is a correct OPEN without capabilities: version, AS, hold time 90 s, identifier, no parameters.
func openBody() []byte {
	return []byte{4, garblerASN >> 8, garblerASN & 0xff, 0, 90, 192, 0, 2, 1, 0}
}

// updateBody is an UPDATE for 203.0.113.0/24 (RFC 5737) with the attributes given.
func updateBody(attrs ...[]byte) []byte {
	var all []byte
	for _, a := range attrs {
		all = append(all, a...)
	}
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(all)))
	return append(append(body, all...), 24, 203, 0, 113)
}
