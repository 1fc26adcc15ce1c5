package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/test/need"
)

// limit bounds every wait; 200 engines on two processors need about a minute.
const limit = 8 * time.Minute

// asn is Calico's default.
const asn = 64512

// addr is the i-th address of a mesh. All have as many digits, so that strings sort as numbers do.
func addr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 100, byte(100 + i/100), byte(100 + i%100)})
}

// block is the k-th block of the i-th node.
func block(i, k int) netip.Prefix {
	n := i*16 + k
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 10), byte(n >> 2), byte(n << 6)}), 26)
}

// session is a node's with another, by the mesh's rule who dials.
func session(from, to netip.Addr) bgp.Peer {
	return bgp.Peer{
		Name: "Mesh_" + strings.ReplaceAll(to.String(), ".", "_"), Addr: to, Port: bgp.DefaultPort, ASN: asn, LocalAddr: from,
		Passive: to.String() > from.String(), Source: "test",
	}
}

func config(i, blocks int) bgp.Config {
	c := bgp.Config{ASN: asn, RouterID: addr(i), ListenAddrs: []netip.Addr{addr(i)}, ListenPort: bgp.DefaultPort}
	for k := range blocks {
		c.Originate = append(c.Originate, own(block(i, k)))
	}
	return c
}

// TestMesh: engines that all peer with each other, from the first session to the last prefix; then one block more.
func TestMesh(t *testing.T) {
	n, blocks := 8, 2
	if *full {
		n, blocks = 200, 2
	}
	ns := need.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var all []*engine
	for i := range n {
		c := config(i, blocks)
		all = append(all, startEngine(t, ns, &c))
		all[i].tell(t, "peers", []bgp.Peer{})
	}
	for _, e := range all {
		e.hear(t, ctx, "ready")
		e.hear(t, ctx, "synced") // with nobody
	}
	began, cpu := time.Now(), cpuOf(t, all)
	for i, e := range all {
		var peers []bgp.Peer
		for j := range n {
			if j != i {
				peers = append(peers, session(addr(i), addr(j)))
			}
		}
		e.tell(t, "await", strconv.Itoa((n-1)*blocks))
		e.tell(t, "peers", peers)
	}
	times := hearAll(t, ctx, all, "known")
	slices.SortFunc(times, time.Time.Compare)
	used := cpuOf(t, all) - cpu
	t.Logf("mesh of %d engines, %d sessions, %d blocks each: half knew everything after %s, the last after %s; %s of processor, %s a session",
		n, n*(n-1)/2, blocks, times[n/2].Sub(began).Round(time.Millisecond), times[n-1].Sub(began).Round(time.Millisecond), used.Round(time.Millisecond),
		(used / time.Duration(n*(n-1)/2)).Round(time.Microsecond))
	sum, most := memoryOf(t, all)
	t.Logf("memory resident: %.1f MiB an engine, %.1f the largest", mib(sum)/float64(n), mib(most))

	for _, e := range all[1:] {
		e.tell(t, "await", strconv.Itoa((n-1)*blocks+1))
	}
	began = time.Now()
	all[0].tell(t, "originate", block(0, blocks).String())
	times = hearAll(t, ctx, all[1:], "known")
	slices.SortFunc(times, time.Time.Compare)
	t.Logf("one block more: half of the others knew it after %s, the last after %s",
		times[len(times)/2].Sub(began).Round(10*time.Microsecond), times[len(times)-1].Sub(began).Round(10*time.Microsecond))
}

func hearAll(t *testing.T, ctx context.Context, all []*engine, what string) (times []time.Time) {
	t.Helper()
	for _, e := range all {
		times = append(times, e.hear(t, ctx, what))
	}
	return times
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// memoryOf is the engines' resident memory (VmRSS of /proc/PID/status), summed, and the most of one, in bytes.
func memoryOf(t *testing.T, all []*engine) (sum, most int64) {
	t.Helper()
	for _, e := range all {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nVmRSS:")
		kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, most = sum+kib<<10, max(most, kib<<10)
	}
	return sum, most
}

// cpuOf is the processor time the engines have used (fields utime and stime of /proc/PID/stat, a hundredth of a second each).
func cpuOf(t *testing.T, all []*engine) (sum time.Duration) {
	t.Helper()
	for _, e := range all {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(e.cmd.Process.Pid), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		for _, f := range strings.Fields(rest)[11:13] {
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}
