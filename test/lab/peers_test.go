package lab

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/lab"
)

// TestPeersSayWhatIsWrong: what keeps a session from being is said of it, with what to do, and the session comes when it is done.
func TestPeersSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	c := cluster(t, lab.Spec{Mode: lab.NoEncapsulation, Nodes: 2}, options(t))
	ctx := t.Context()
	store, err := c.Store()
	if err != nil {
		t.Fatal(err)
	}
	other := c.Plan.Nodes[1].Addr4.Addr().String()
	// says waits until a node says something of its session with the other one, or that it is up.
	says := func(node, address, what string) {
		t.Helper()
		// A session that was lost comes back after 5 to 10 s, and a port is tried again after up to 30 s.
		within(t, time.Minute, func() error {
			list, err := c.Peers(ctx, node)
			if err != nil {
				return err
			}
			for _, p := range list {
				if p.GetAddress() != address {
					continue
				}
				text := fmt.Sprintf("%s; %s; %s", p.GetState(), p.GetLastError(), p.GetRemedy())
				if !strings.Contains(text, what) {
					return fmt.Errorf("%s says %q, want %q", node, text, what)
				}
				return nil
			}
			return fmt.Errorf("%s has no session with %s", node, address)
		})
	}
	const up = "ESTABLISHED"
	self := c.Plan.Nodes[0].Addr4.Addr().String()
	with := func(spec calico.BGPPeerSpec, do func()) {
		t.Helper()
		spec.Node, spec.PeerIP = "node1", other
		peer := &calico.BGPPeer{ObjectMeta: calico.ObjectMeta{Name: "wrong"}, Spec: spec}
		created, err := store.Create(ctx, peer)
		if err != nil {
			t.Fatal(err)
		}
		do()
		if err := store.Delete(ctx, created); err != nil {
			t.Fatal(err)
		}
		says("node1", other, up)
	}
	says("node1", other, up)
	with(calico.BGPPeerSpec{ASNumber: 64999}, func() {
		says("node1", other, "the peer introduces itself with another AS than 64999: correct")
	})
	with(calico.BGPPeerSpec{ASNumber: 64512, Password: &calico.Password{SecretKeyRef: &calico.SecretKeyRef{Name: "none", Key: "k"}}}, func() {
		says("node1", other, "held down: Secret none, which spec.password of BGPPeer wrong names, does not exist or cannot be read: create it")
	})

	if err := c.Stop(ctx, "node1", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ns, err := c.NS("node1")
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp", ":179"); return err }); err != nil {
		t.Fatal(err)
	}
	if err := c.Start("node1"); err != nil {
		t.Fatal(err)
	}
	says("node1", other, "listen for BGP on port 179: another program has it, perhaps BIRD: stop that one")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	says("node1", other, up)
	says("node2", self, up)
}
