package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
	"github.com/caracal-net/caracal/internal/startup"
)

// awayStore is a datastore that cannot be reached before a moment.
type awayStore struct {
	datastore.Store
	until time.Time
}

func (s *awayStore) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	if time.Now().Before(s.until) {
		return nil, errors.New("connection refused")
	}
	return s.Store.Get(ctx, kind, name)
}

func startOptions(t *testing.T, store datastore.Store, env ...string) startup.Options {
	t.Helper()
	dir := t.TempDir()
	env = append(env, "NODENAME=node-a", "NO_DEFAULT_POOLS=true", "CALICO_NODENAME_FILE="+filepath.Join(dir, "nodename"), "CARACAL_MTU_FILE="+filepath.Join(dir, "mtu"))
	settings, err := startup.Parse(func(name string) string {
		for _, e := range env {
			if value, ok := strings.CutPrefix(e, name+"="); ok {
				return value
			}
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	return startup.Options{Settings: settings, Store: store, Log: slog.New(slog.DiscardHandler), HasIPv6: func() bool { return false },
		Interfaces: func(context.Context) ([]startup.Interface, error) {
			return []startup.Interface{{Name: "eth0", MTU: 1500, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}}, nil
		}}
}

// TestNodeStart: a datastore that is away is asked again and holds up nothing; what somebody has to change first ends the daemon.
func TestNodeStart(t *testing.T) {
	store := datastoretest.NewMemory()
	opts := startOptions(t, &awayStore{store, time.Time{}}, "IP=autodetect")
	synctest.Test(t, func(t *testing.T) {
		opts.Store = &awayStore{store, time.Now().Add(time.Minute)}
		s := newNodeStart(opts)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		if s.Err() == nil {
			t.Error("started before it has begun")
		}
		time.Sleep(time.Minute - time.Second)
		synctest.Wait()
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("while the datastore is away: %v", err)
		}
		time.Sleep(startRetryMax + time.Second)
		synctest.Wait()
		if err := s.Err(); err != nil {
			t.Errorf("with the datastore back: %v", err)
		}
		obj, err := store.Get(ctx, calico.KindNode, "node-a")
		if err != nil || obj.(*calico.Node).Spec.BGP == nil || obj.(*calico.Node).Spec.BGP.IPv4Address != "192.0.2.7/24" {
			t.Errorf("the Node is %+v, %v", obj, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	twin := &calico.Node{Spec: calico.NodeSpec{BGP: &calico.NodeBGPSpec{IPv4Address: "192.0.2.7/24"}}}
	twin.Name = "node-b"
	s := newNodeStart(startOptions(t, datastoretest.NewMemory(twin), "IP=autodetect"))
	if err := s.Run(t.Context()); !errors.Is(err, startup.ErrRefused) {
		t.Errorf("with another Node at our address: %v", err)
	}
}

// TestEnvironmentsMTU: what the environment says of devices goes before FelixConfiguration.
func TestEnvironmentsMTU(t *testing.T) {
	st := cluster.Build(cluster.Objects{Felix: cluster.FelixConfig{VXLANPort: 4789, VXLANVNI: 4096, IPIPMTU: 1400, VXLANMTU: 1410, VXLANMTUv6: 1420}})
	d := &daemon{cfg: Config{Settings: &startup.Settings{MTU: startup.MTUSettings{IPIP: 1300, VXLAN6: 1320}}}}
	if f := st.WithMTU(d.mtu()).Felix(); f.IPIPMTU != 1300 || f.VXLANMTU != 1410 || f.VXLANMTUv6 != 1320 || f.VXLANPort != 4789 {
		t.Errorf("%+v", f)
	}
	if f := st.Felix(); f.IPIPMTU != 1400 {
		t.Errorf("the State was changed: %+v", f)
	}
	if st.WithMTU((&daemon{}).mtu()) != st || (*cluster.State)(nil).WithMTU(d.mtu()) != nil {
		t.Error("a State was copied for nothing")
	}
}

func TestDatastoreOfTheEnvironment(t *testing.T) {
	for _, c := range []struct{ own, calico, want string }{
		{"", "", ""}, {"", "kubernetes", "kubernetes"}, {"", "etcdv3", ""}, {"file:/d", "kubernetes", "file:/d"}, {"kubernetes", "", "kubernetes"},
	} {
		got := DefaultDatastore(func(name string) string {
			return map[string]string{EnvDatastore: c.own, EnvDatastoreType: c.calico}[name]
		})
		if got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
