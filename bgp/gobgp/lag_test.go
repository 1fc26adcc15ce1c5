package gobgp_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp/gobgp"
)

// TestLag: while we are told late of what peers have sent, the engine takes no more from them, but never for long; otherwise nothing waits.
func TestLag(t *testing.T) {
	parallel(t)
	n, p := rawLab(t, "127.2.19", true)
	attrs := join(origin, asPath, nextHop("127.2.19.3"), localPref)
	took := func(i int, age time.Duration) time.Duration {
		prefix := fmt.Sprintf("10.1.%d.0/26", i)
		n.Speaker.Lag(age)
		began := time.Now()
		p.send(update(attrs, prefix))
		eventually(t, prefix, func() string { return absent(n, prefix) })
		return time.Since(began)
	}
	const tries = 5 // a busy machine may not come to an UPDATE before the lag is old news, or come late to all
	held, free := time.Duration(0), time.Hour
	for i := range tries {
		held = max(held, took(2*i, time.Minute))
		free = min(free, took(2*i+1, 0))
	}
	if held < gobgp.LagWait || free >= gobgp.LagWait {
		t.Errorf("with a lag an UPDATE took %v, without %v; want %v at least, and less", held, free, gobgp.LagWait)
	}
}
