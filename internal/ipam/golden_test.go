package ipam

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

var rewrite = flag.Bool("update", false, "write the golden files anew")

// TestGolden fixes, field by field, what is in the datastore after known operations, as JSON and YAML have it. The files
// are to be read against reference 3.2 to 3.6; the time is that of testing/synctest, midnight of 2000-01-01 UTC.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*testing.T, *Client)
	}{
		{"claimed", func(t *testing.T, c *Client) { claimOne(t, c, "10.244.0.0/29") }},
		{"assigned", func(t *testing.T, c *Client) {
			claimOne(t, c, "10.244.0.0/29")
			mustAssign(t, c, Request{Family: cluster.IPv4, Num: 2, Handle: "k8s-pod-network.AB12", Use: Workload,
				Attrs: map[string]string{"namespace": "default", "pod": "web-0", "node": "node-a", "timestamp": "2000-01-01 00:00:00 +0000 UTC"}})
			if err := c.AssignIP(t.Context(), netip.MustParseAddr("10.244.0.6"), "k8s-pod-network.cd34", map[string]string{"pod": "db-0"}, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := c.ReleaseIPs(t.Context(), Release{Addr: netip.MustParseAddr("10.244.0.0")}); err != nil {
				t.Fatal(err)
			}
		}},
		{"tunnels", func(t *testing.T, c *Client) { ensure(t, c) }},
		{"cooldown", func(t *testing.T, c *Client) {
			c.Store.(*datastoretest.Memory).MustCreate(t, ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.IPCooldownSeconds = 60 }))
			claimOne(t, c, "10.244.0.0/29")
			mustAssign(t, c, Request{Family: cluster.IPv4, Num: 1, Handle: "one", Use: Workload})
			mustAssign(t, c, Request{Family: cluster.IPv4, Num: 1, Handle: "two", Use: Workload})
			if err := c.ReleaseByHandle(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
		}},
		{"ownerless", func(t *testing.T, c *Client) {
			b := claimOne(t, c, "10.244.0.0/29")
			mustAssign(t, c, Request{Family: cluster.IPv4, Num: 1, Handle: "one", Use: Workload})
			if err := c.ReleaseAffinity(t.Context(), b, false); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := datastoretest.NewMemory(ipPool("v4", "10.244.0.0/29", size(29), vxlan), ipPool("v6", "fd00:10:244::/125", size(125), vxlan),
					calicoNode("node-a"))
				c.do(t, &Client{Store: store, Node: "node-a"})
				wantCheck(t, store)
				golden(t, c.name, store)
			})
		})
	}
}

func claimOne(t *testing.T, c *Client, pool string) netip.Prefix {
	t.Helper()
	b, err := c.ClaimBlock(t.Context(), netip.MustParsePrefix(pool))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func golden(t *testing.T, name string, store *datastoretest.Memory) {
	t.Helper()
	var text strings.Builder
	for _, obj := range store.Objects() {
		switch obj.(type) {
		case *calico.IPPool, *calico.IPAMConfiguration:
			continue
		}
		meta := obj.Meta()
		meta.UID, meta.ResourceVersion, meta.CreationTimestamp = "", "", nil // the store's, not ours
		y, err := yaml.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		j, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "--- # %s\n%s# as JSON: %s\n", obj.Kind(), y, j)
	}
	file := filepath.Join("testdata", name+".yaml")
	if *rewrite {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("%s:\n%s", file, diff)
	}
}

// TestSequenceNumbers: from the clock at creation, one more with every write; an allocation has the number of the block
// that it was made in, and a block made again never repeats one.
func TestSequenceNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := datastoretest.NewMemory(ipPool("v4", "10.244.0.0/29", size(29)), calicoNode("node-a"))
		c := client(t, store, "node-a")
		start := uint64(time.Now().UnixNano())
		cidr := claimOne(t, c, "10.244.0.0/29")
		mustAssign(t, c, workload("h", 1))
		mustAssign(t, c, workload("h2", 1))
		b := getBlock(t, store, cidr.String())
		if b.Spec.SequenceNumber != start+2 || b.Spec.SequenceNumberForAllocation["0"] != start || b.Spec.SequenceNumberForAllocation["1"] != start+1 {
			t.Errorf("block at start+%d, allocations %v, start %d", b.Spec.SequenceNumber-start, b.Spec.SequenceNumberForAllocation, start)
		}
		for _, h := range []string{"h", "h2"} {
			if err := c.ReleaseByHandle(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.ReleaseAffinity(t.Context(), cidr, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		claimOne(t, c, "10.244.0.0/29")
		mustAssign(t, c, workload("h", 1))
		_, err := c.ReleaseIPs(t.Context(), Release{Addr: netip.MustParseAddr("10.244.0.0"), Sequence: start})
		wantIs(t, err, ErrNotHeld)
	})
}

// TestLabels: the test vector of reference 3.3.
func TestLabels(t *testing.T) {
	a := newAffinity("node-a", netip.MustParsePrefix("fd00:10:244::/122"))
	want := map[string]string{
		"projectcalico.org/hostname-hash": "PY3TQE2E3XMTETLM2MJO3UITKPFB27YUJ4T4E5XGPEJON3SM4QAA",
		"projectcalico.org/affinity-type": "host",
		"projectcalico.org/ip-version":    "6",
	}
	if diff := cmp.Diff(want, a.Labels); diff != "" || a.Name != "node-a-fd00-10-244---122" {
		t.Errorf("name %s, labels:\n%s", a.Name, diff)
	}
}
