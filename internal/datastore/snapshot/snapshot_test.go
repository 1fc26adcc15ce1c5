package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// everything is a State with an object of every kind.
func everything() *cluster.State {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	return cluster.Build(cluster.Objects{
		Nodes: []*cluster.Node{{Name: "node-a", Addr4: p("192.0.2.1/24"), Addr6: p("2001:db8::1/64"), VXLANAddr4: a("10.1.0.1"), VXLANMAC4: cluster.MAC{0x66, 1},
			ASN: 64513, Labels: map[string]string{"rack": "r1"}, RouteReflectorClusterID: a("0.0.0.7")}},
		Pools:      []*cluster.Pool{{Name: "p", CIDR: p("10.1.0.0/16"), VXLANMode: cluster.CrossSubnet, BlockSize: 26, Workload: true, Tunnel: true, NATOutgoing: true}},
		Blocks:     []*cluster.Block{{CIDR: p("10.1.0.0/26"), Node: "node-a", Borrowed: []cluster.Assignment{{Addr: a("10.1.0.5"), Node: "node-b"}}}},
		Affinities: []*cluster.Affinity{{Node: "node-a", CIDR: p("10.1.0.0/26"), State: cluster.Confirmed}},
		Peers:      []*cluster.BGPPeer{{Name: "tor", PeerIP: a("192.0.2.254"), ASN: 65000, Filters: []string{"f"}, Password: cluster.SecretKey{Wanted: true, Name: "s", Key: "k"}}},
		Filters:    []*cluster.BGPFilter{{Name: "f", Import4: []cluster.FilterRule{{CIDR: p("10.0.0.0/8"), MinLen: 8, MaxLen: 32, Accept: true}}}},
		Secrets:    []*cluster.Secret{{Name: "s", Data: map[string]string{"k": "hidden"}}},
		Services:   []*cluster.Service{{Name: "default/web", ClusterIPs: []netip.Addr{a("10.96.0.7")}, LoadBalancerIPs: []netip.Addr{a("203.0.113.9")}, Local: true, HealthPort: 30000}},
		Slices:     []*cluster.EndpointSlice{{Name: "default/web-1", Service: "default/web", Family: cluster.IPv4, Ready: []string{"", "node-a"}}},
		Pods:       []*cluster.Pod{{Name: "default/web-0", Node: "node-a", Addrs: []netip.Addr{a("10.1.0.5"), a("fd00::5")}}},
		BGP:        cluster.BGPConfig{ASN: 64600, Mesh: true, ListenPort: 1179, NormalPriority4: 1024, NormalPriority6: 1024, NodeListenPorts: map[string]uint16{"node-a": 2179}},
		Felix:      cluster.FelixConfig{VXLANPort: 4790, VXLANVNI: 7}, Backend: cluster.BackendBird,
		Problems: []cluster.Problem{{Object: "IPPool q", Text: "wrong"}},
	})
}

var values = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty(),
}

func TestNothingIsLost(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	text, err := encode(&content{"node-a", everything().Objects()}, at)
	if err != nil {
		t.Fatal(err)
	}
	c, when, err := decode(bytes.NewReader(text), "node-a", at.Add(time.Hour), 2*time.Hour)
	if err != nil || !when.Equal(at) {
		t.Fatal(when, err)
	}
	if diff := cmp.Diff(everything().Objects(), cluster.Build(c.Objects).Objects(), values); diff != "" {
		t.Error(diff)
	}
}

// TestRefused: a file is used whole and by its own node, or not at all.
func TestRefused(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	good, err := encode(&content{"node-a", everything().Objects()}, at)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		node   string
		now    time.Time
		want   error
	}{
		"nothing wrong":   {nil, "node-a", at, nil},
		"empty":           {func([]byte) []byte { return nil }, "node-a", at, errDamaged},
		"cut short":       {func(b []byte) []byte { return b[:len(b)-1] }, "node-a", at, errDamaged},
		"too long":        {func(b []byte) []byte { return append(b, 0) }, "node-a", at, errDamaged},
		"other magic":     {func(b []byte) []byte { b[0] = 'X'; return b }, "node-a", at, errDamaged},
		"absurd length":   {func(b []byte) []byte { b[20] = 0xff; return b }, "node-a", at, errDamaged},
		"a bit of it":     {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "node-a", at, errDamaged},
		"a bit of sum":    {func(b []byte) []byte { b[30] ^= 1; return b }, "node-a", at, errDamaged},
		"other version":   {func(b []byte) []byte { b[11]++; return b }, "node-a", at, errVersion},
		"old":             {nil, "node-a", at.Add(2*time.Hour + time.Second), errAge},
		"of the future":   {nil, "node-a", at.Add(-2 * time.Hour), errFuture},
		"another node's":  {nil, "node-b", at, errNode},
		"almost too old":  {nil, "node-a", at.Add(2 * time.Hour), nil},
		"clock being set": {nil, "node-a", at.Add(-time.Minute), nil},
	} {
		text := bytes.Clone(good)
		if c.change != nil {
			text = c.change(text)
		}
		if _, _, err := decode(bytes.NewReader(text), c.node, c.now, 2*time.Hour); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzDecode: no file does any harm.
func FuzzDecode(f *testing.F) {
	good, err := encode(&content{"node-a", everything().Objects()}, time.Unix(0, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, _, err := decode(bytes.NewReader(b), "node-a", time.Unix(0, 0), time.Hour); err == nil {
			cluster.Build(c.Objects)
		}
	})
}

// script is a datastore that says what a test tells it to.
type script struct{ say chan datastore.Update }

func (s *script) Watch(ctx context.Context, sink func(datastore.Update)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u := <-s.say:
			sink(u)
		}
	}
}

// life is one process with the Watcher.
type life struct {
	*script
	mu   sync.Mutex
	got  []datastore.Update
	log  bytes.Buffer
	stop func()
}

func live(t *testing.T, o Options) *life {
	l := &life{script: &script{make(chan datastore.Update)}}
	o.Log = slog.New(slog.NewTextHandler(&l.log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- New(l.script, o).Watch(ctx, func(u datastore.Update) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.got = append(l.got, u)
		})
	}()
	l.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	return l
}

func (l *life) last() datastore.Update {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.got) == 0 {
		return datastore.Update{}
	}
	return l.got[len(l.got)-1]
}

// TestLives follows processes of one node through an outage.
func TestLives(t *testing.T) {
	o := Options{File: filepath.Join(t.TempDir(), "dir", "state"), Node: "node-a"}
	smaller := cluster.Build(cluster.Objects{Nodes: []*cluster.Node{{Name: "node-a"}}})
	synctest.Test(t, func(t *testing.T) {
		// A first life without a file: nothing is made up.
		l := live(t, o)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(l.got) != 0 || strings.Contains(l.log.String(), "WARN") {
			t.Errorf("without a file: %+v\n%s", l.got, l.log.String())
		}
		l.say <- datastore.Update{State: everything(), InSync: true}
		synctest.Wait()
		if u := l.last(); !u.InSync || !u.Stale.IsZero() {
			t.Errorf("the datastore's word became %+v", u)
		}
		began := time.Now()
		l.stop()
		if _, err := os.Stat(o.File); err != nil {
			t.Fatal(err)
		}

		// A second one, with the datastore away: what it says of its trouble is passed on, and after a while the memory speaks.
		l = live(t, o)
		l.say <- datastore.Update{Err: errors.New("connection refused")}
		synctest.Wait()
		if u := l.last(); u.State != nil || u.Err == nil {
			t.Errorf("at once: %+v", u)
		}
		time.Sleep(DefaultGrace)
		synctest.Wait()
		u := l.last()
		if u.InSync || u.Err == nil || u.Stale.Unix() != began.Unix() || cmp.Diff(everything().Objects(), u.State.Objects(), values) != "" {
			t.Errorf("after the grace: %+v", u)
		}
		l.say <- datastore.Update{Err: errors.New("no route to host")}
		synctest.Wait()
		if u := l.last(); u.State == nil || !strings.Contains(u.Err.Error(), "no route") {
			t.Errorf("another trouble: %+v", u)
		}
		// The datastore is back; from here on only it counts.
		l.say <- datastore.Update{State: smaller, InSync: true}
		l.say <- datastore.Update{State: smaller, InSync: true, Err: errors.New("away again")}
		synctest.Wait()
		if u := l.last(); u.State != smaller || !u.Stale.IsZero() || !u.InSync || u.Err == nil {
			t.Errorf("back: %+v", u)
		}
		l.stop()

		// What is suspect is not kept.
		l = live(t, o)
		l.say <- datastore.Update{State: everything(), InSync: true, Suspect: "old"}
		synctest.Wait()
		l.stop()
		l = live(t, o)
		time.Sleep(DefaultGrace)
		synctest.Wait()
		if u := l.last(); u.State == nil || len(u.State.Blocks()) != 0 {
			t.Errorf("kept: %+v", u.State)
		}
		l.stop()

		// Too old.
		time.Sleep(DefaultMaxAge)
		l = live(t, o)
		time.Sleep(DefaultGrace)
		synctest.Wait()
		if len(l.got) != 0 || strings.Count(l.log.String(), "too old") != 1 {
			t.Errorf("%+v\n%s", l.got, l.log.String())
		}
		l.stop()
	})
}

// TestPace: States that change all the time are written at most once an interval, and none is forgotten.
func TestPace(t *testing.T) {
	o := Options{File: filepath.Join(t.TempDir(), "state"), Node: "node-a"}
	synctest.Test(t, func(t *testing.T) {
		l := live(t, o)
		writes, last := 0, ""
		for i := range 600 { // a minute
			st := cluster.Build(cluster.Objects{Nodes: []*cluster.Node{{Name: "node-a", ASN: uint32(i)}}})
			l.say <- datastore.Update{State: st, InSync: true}
			synctest.Wait()
			if text, err := os.ReadFile(o.File); err == nil && string(text) != last {
				writes, last = writes+1, string(text)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if writes < 5 || writes > 6 {
			t.Errorf("%d writes in a minute", writes)
		}
		l.stop()
		f, _ := os.Open(o.File)
		defer f.Close()
		if c, _, err := decode(f, "node-a", time.Now(), time.Hour); err != nil || c.Objects.Nodes[0].ASN != 599 {
			t.Errorf("the last State was not kept: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(o.File), "*")); len(left) != 1 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestNoRoom: a disk that takes nothing is told of once, and does not keep Updates from getting through.
func TestNoRoom(t *testing.T) {
	o := Options{File: filepath.Join(t.TempDir(), "state"), Node: "node-a"}
	if err := os.Mkdir(o.File, 0o755); err != nil { // a directory is in the way
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.File, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := live(t, o)
		for range 10 {
			l.say <- datastore.Update{State: everything(), InSync: true}
			time.Sleep(DefaultInterval)
		}
		l.stop()
		if n := strings.Count(l.log.String(), "cannot be kept"); n != 1 || len(l.got) != 10 {
			t.Errorf("%d updates, told %d times:\n%s", len(l.got), n, l.log.String())
		}
	})
}

// TestKeptWhenItIsGood: a State that may not be kept yet is kept when it may, though the datastore says nothing more.
func TestKeptWhenItIsGood(t *testing.T) {
	var good atomic.Bool
	o := Options{File: filepath.Join(t.TempDir(), "state"), Node: "node-a", Good: good.Load}
	synctest.Test(t, func(t *testing.T) {
		l := live(t, o)
		l.say <- datastore.Update{State: everything(), InSync: true}
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, err := os.Stat(o.File); !errors.Is(err, fs.ErrNotExist) {
			t.Error("kept while it is not good:", err)
		}
		good.Store(true)
		time.Sleep(DefaultInterval)
		synctest.Wait()
		if _, err := os.Stat(o.File); err != nil {
			t.Error(err)
		}
		l.stop()
	})
}
