package gobgp_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/caracal-net/caracal/bgp"
)

// TestToldAgain: a client that comes up while others bring their routes is told of them again, since GoBGP may have told it of none that came at that moment;
// one that comes up while nothing changes is not.
func TestToldAgain(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	us := config("127.3.45.2", port)
	client := func(addr string) (*rawPeer, bgp.Peer) {
		p := peering(us.ListenAddrs[0], netip.MustParseAddr(addr), port, 64512)
		p.Name, p.Passive, p.Client, p.ClusterID = "Node_"+addr, true, true, us.RouterID
		return &rawPeer{t: t, from: addr, to: fmt.Sprintf("127.3.45.2:%d", port), as4: true}, p
	}
	hearer, a := client("127.3.45.3")
	teller, b := client("127.3.45.4")
	us.Peers = []bgp.Peer{a, b}
	startAll(t, us)
	teller.dial()
	hearer.dial()
	teller.send(update(join(origin, asPath, nextHop("127.3.45.4"), localPref), "10.1.0.0/26"))
	endOfRIB := message(msgUpdate, []byte{0, 0, 0, 0})
	teller.send(endOfRIB)
	hearer.send(endOfRIB)
	if told := listen(hearer, "10.1.0.0/26"); told < 2 {
		t.Errorf("told %d times of what came at the same time", told)
	}
	_ = hearer.conn.Close()
	hearer.dial()
	if told := listen(hearer, "10.1.0.0/26"); told != 1 {
		t.Errorf("told %d times of what had come long before", told)
	}
}

// listen counts how often a prefix is mentioned until nothing is said for some seconds.
func listen(p *rawPeer, prefix string) (n int) {
	q := netip.MustParsePrefix(prefix)
	nlri := append([]byte{byte(q.Bits())}, q.Addr().AsSlice()[:(q.Bits()+7)/8]...)
	for {
		_, body, err := p.read()
		if err != nil {
			return n
		}
		n += bytes.Count(body, nlri)
	}
}
