package gobgp_test

import (
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

// TestBackFromDeafness runs TestBackFromDeafnessInside on one processor, where GoBGP does what it may do on any.
func TestBackFromDeafness(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestBackFromDeafnessInside$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), insideEnv+"=1", "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestBackFromDeafnessInside: a peer that takes nothing loses its connection while much waits for it. When it is back it is told all there is, and nothing of what was before; GoBGP
// alone would tell it nothing at all, in this session and those that follow.
func TestBackFromDeafnessInside(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		t.Skip("is run by TestBackFromDeafness")
	}
	const prefixes = 12000
	port := testPort()
	us := config("127.3.62.1", port)
	p := peering(us.ListenAddrs[0], netip.MustParseAddr("127.3.62.2"), port, 64512)
	p.Passive, p.Client, p.ClusterID = true, true, us.RouterID
	us.Peers = []bgp.Peer{p}
	n := startAll(t, us)[0]
	begin := func(slow bool) *talker {
		return talk(t, p.Addr, 64512, netip.AddrPortFrom(us.ListenAddrs[0], port), slow)
	}
	k := begin(true)
	k.deaf.Lock()
	for round := range 3 { // each has all of them be told anew
		n.cfg.Originate = nil
		for i := range prefixes {
			q := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
			n.cfg.Originate = append(n.cfg.Originate, bgp.Origination{Prefix: q, Source: "test", LocalPref: uint32(1 + 10*i + round)})
		}
		n.apply(t)
	}
	n.cfg.Originate = n.cfg.Originate[:prefixes/2]
	k.ending.Store(true)
	_ = k.conn.Close()
	n.apply(t)
	k.deaf.Unlock()
	lost := time.Now()
	for sessions := 1; time.Since(lost) < patience; sessions++ {
		k = begin(false)
		for k.alive() && time.Since(lost) < patience {
			if len(k.knows()) == prefixes/2 {
				t.Logf("told everything %v after the connection was lost, in session %d", time.Since(lost).Round(time.Millisecond), sessions)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		k.ending.Store(true)
	}
	t.Fatalf("%d prefixes are known %v after the connection was lost: %q", len(k.knows()), time.Since(lost), k.complaints())
}
