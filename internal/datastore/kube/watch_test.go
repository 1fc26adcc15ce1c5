package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/test/kubetest"
)

// cluster1 is a small cluster as Calico leaves it, in the classic form.
const cluster1 = `
apiVersion: v1
kind: Node
metadata:
  name: a
  labels: {rack: r1}
  annotations:
    projectcalico.org/IPv4Address: 192.0.2.1/24
    projectcalico.org/IPv4VXLANTunnelAddr: 10.0.0.1
    projectcalico.org/VXLANTunnelMACAddr: 66:00:00:00:00:01
    projectcalico.org/ASNumber: "1.10"
    projectcalico.org/RouteReflectorClusterID: 192.0.2.99
    projectcalico.org/labels: '{"rack": "hidden", "zone": "z1"}'
    somebody.else/note: x
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: pool
  annotations:
    projectcalico.org/metadata: '{"uid":"c0ffee00-0000-0000-0000-000000000000","creationTimestamp":"2026-01-31T12:00:00Z","deletionTimestamp":"2026-02-01T12:00:00Z"}'
spec: {cidr: 10.0.0.0/16, blockSize: 26, ipipMode: Never, vxlanMode: Always, natOutgoing: true, nodeSelector: all(), someNewField: {x: 1}}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMBlock
metadata: {name: 10-0-0-0-30, annotations: {projectcalico.org/metadata: '{"creationTimestamp":null}'}}
spec:
  cidr: 10.0.0.0/30
  affinity: host:a
  strictAffinity: false
  allocations: [null, 0, 1, null]
  unallocated: [0, 3]
  attributes: [{handle_id: h, secondary: {node: a}}, {handle_id: i, secondary: {node: b}}]
---
apiVersion: crd.projectcalico.org/v1
kind: BlockAffinity
metadata: {name: a-10-0-0-0-30}
spec: {cidr: 10.0.0.0/30, node: a, state: confirmed, deleted: "false"}
---
apiVersion: crd.projectcalico.org/v1
kind: BlockAffinity
metadata: {name: b-10-0-0-4-30}
spec: {cidr: 10.0.0.4/30, node: b, state: pending, deleted: "true"}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64600, nodeMeshMaxRestartTime: 45s}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.0.2.254, asNumber: 4200000000}
---
apiVersion: crd.projectcalico.org/v1
kind: FelixConfiguration
metadata: {name: default}
spec: {vxlanVNI: 5000, bpfEnabled: false}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: calico-config, namespace: kube-system}
data: {calico_backend: vxlan, veth_mtu: "0"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: kube-system}
data: {calico_backend: nonsense}
`

// inForm rewrites a manifest of the classic form.
func inForm(form kubetest.Form, manifest string) string {
	if form == kubetest.Classic {
		return manifest
	}
	return strings.NewReplacer(string(kubetest.Classic), string(form), `deleted: "false"`, "deleted: false", `deleted: "true"`, "deleted: true").Replace(manifest)
}

func TestWatchReadsWhatCalicoWrites(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		t.Run(string(form), func(t *testing.T) {
			s := shared.Get(t)
			s.Clear(t, kubetest.Classic, kubetest.Native)
			s.Apply(t, inForm(form, cluster1))
			u := observe(t, open(t, s, kubetest.Admin, form)).until("all", healed)
			st := u.State
			want := cluster.Node{Name: "a", Labels: map[string]string{"rack": "r1", "zone": "z1"}, Addr4: netip.MustParsePrefix("192.0.2.1/24"),
				VXLANAddr4: netip.MustParseAddr("10.0.0.1"), VXLANMAC4: cluster.MAC{0x66, 0, 0, 0, 0, 1}, ASN: 65546,
				RouteReflectorClusterID: netip.MustParseAddr("192.0.2.99")}
			if got := st.Node("a"); fmt.Sprint(*got) != fmt.Sprint(want) {
				t.Errorf("node\n%+v, want\n%+v", *got, want)
			}
			if p := st.Pools(); len(p) != 1 || p[0].VXLANMode != cluster.Always || !p[0].NATOutgoing || p[0].Terminating != (form == kubetest.Classic) {
				t.Errorf("pools %+v", p[0])
			}
			b := st.Block(netip.MustParsePrefix("10.0.0.0/30"))
			if b == nil || b.Node != "a" || len(b.Borrowed) != 1 || b.Borrowed[0].Node != "b" {
				t.Errorf("block %+v", b)
			}
			if a := st.Affinities(); len(a) != 1 || a[0].Node != "a" || a[0].State != cluster.Confirmed {
				t.Errorf("affinities %+v", a)
			}
			if g := st.BGP(); g.ASN != 64600 || g.MeshMaxRestartTime.Seconds() != 45 {
				t.Errorf("BGP %+v", g)
			}
			if p := st.BGPPeers(); len(p) != 1 || p[0].ASN != 4200000000 {
				t.Errorf("peers %+v", p)
			}
			if st.Felix().VXLANVNI != 5000 || st.Backend() != cluster.BackendVXLAN || len(st.Problems()) != 0 {
				t.Errorf("felix %+v, backend %q, problems %+v", st.Felix(), st.Backend(), st.Problems())
			}
		})
	}
}

// annotate patches annotations of a node as the user.
func annotate(t testing.TB, s *kubetest.Server, node string, annotations string, subresources ...string) {
	t.Helper()
	body := []byte(`{"metadata":{"annotations":{` + annotations + `}}}`)
	_, err := s.Client(t, kubetest.Admin).Resource(nodeResource).Patch(t.Context(), node, types.MergePatchType, body, metav1.PatchOptions{}, subresources...)
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchFollows(t *testing.T) {
	s := shared.Get(t)
	s.Clear(t, kubetest.Classic, kubetest.Native)
	s.Apply(t, cluster1)
	store := open(t, s, kubetest.Admin, kubetest.Classic)
	o := observe(t, store)
	o.until("what is there", hasNodes("a"))
	s.Apply(t, "{apiVersion: v1, kind: Node, metadata: {name: b, annotations: {projectcalico.org/IPv4Address: 192.0.2.2/24}}}")
	o.until("a new node", hasNodes("a", "b"))

	// What wakes nobody: a heartbeat, an annotation of somebody else, an address taken in a node's own block, another
	// kind, a handle.
	_, before := o.last()
	c := s.Client(t, kubetest.Admin)
	for i := range 20 {
		beat := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-31T12:00:%02dZ"}]}}`, i)
		if _, err := c.Resource(nodeResource).Patch(t.Context(), "a", types.StrategicMergePatchType, beat, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	annotate(t, s, "a", `"somebody.else/note": "y"`)
	obj, err := store.Get(t.Context(), calico.KindIPAMBlock, "10-0-0-0-30")
	if err != nil {
		t.Fatal(err)
	}
	block := obj.(*calico.IPAMBlock)
	zero := 0
	block.Spec.Allocations[0], block.Spec.Unallocated = &zero, []int{3}
	if _, err := store.Update(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	s.Apply(t, "{apiVersion: crd.projectcalico.org/v1, kind: ClusterInformation, metadata: {name: default}, spec: {calicoVersion: v3.33.0}}")
	if _, err := store.Create(t.Context(), &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: "h"}}); err != nil {
		t.Fatal(err)
	}
	annotate(t, s, "b", `"projectcalico.org/IPv4Address": "192.0.2.3/24"`, "status")
	o.until("a changed annotation", func(u datastore.Update) bool {
		return u.State.Node("b").Addr4.Addr() == netip.MustParseAddr("192.0.2.3")
	})
	if _, n := o.last(); n != before+1 {
		t.Errorf("%d updates for noise and one change, want 1", n-before)
	}

	// The pool goes, and comes back in another mode.
	pool, err := store.Get(t.Context(), calico.KindIPPool, "pool")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	o.until("no pool", func(u datastore.Update) bool { return len(u.State.Pools()) == 0 })
	s.Apply(t, "{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: pool}, spec: {cidr: 10.0.0.0/16, ipipMode: CrossSubnet}}")
	o.until("the new pool", func(u datastore.Update) bool {
		return len(u.State.Pools()) == 1 && u.State.Pools()[0].IPIPMode == cluster.CrossSubnet
	})
	s.Apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: calico-config, namespace: kube-system}, data: {calico_backend: bird}}")
	o.until("the backend", func(u datastore.Update) bool { return u.State.Backend() == cluster.BackendBird })
	if err := c.Resource(nodeResource).Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	o.until("a node less", hasNodes("a"))
	o.every("without trouble", func(u datastore.Update) bool { return healed(u) && u.Suspect == "" && len(u.State.Problems()) == 0 })
}

// TestBadObjects: what the definitions of an older Calico let through costs only itself, and is told with the field's name.
func TestBadObjects(t *testing.T) {
	s := shared.Get(t)
	s.Clear(t, kubetest.Classic, kubetest.Native)
	s.Apply(t, cluster1)
	o := observe(t, open(t, s, kubetest.Admin, kubetest.Classic))
	o.until("what is there", hasNodes("a"))
	s.Apply(t, `
{apiVersion: v1, kind: Node, metadata: {name: c, annotations: {projectcalico.org/IPv4Address: 192.0.2.300/24, projectcalico.org/IPv6Address: "2001:db8::3/64", projectcalico.org/ASNumber: many}}}
---
{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: two}, spec: {cidr: 10.1.0.0/16, ipipMode: Always, vxlanMode: Always}}
---
{apiVersion: crd.projectcalico.org/v1, kind: BGPPeer, metadata: {name: odd, annotations: {projectcalico.org/metadata: "{"}}, spec: {peerIP: 192.0.2.253, asNumber: 1}}
---
{apiVersion: crd.projectcalico.org/v1, kind: BGPConfiguration, metadata: {name: node.a}, spec: {listenPort: 1790, asNumber: x.y}}
`)
	u := o.until("all problems", func(u datastore.Update) bool { return len(u.State.Problems()) >= 5 })
	var got []string
	for _, p := range u.State.Problems() {
		got = append(got, p.Object+": "+p.Field)
		if p.Text == "" || p.Line != 0 || p.File != "" {
			t.Errorf("%+v", p)
		}
	}
	want := []string{
		"BGPConfiguration node.a: spec.asNumber",
		"BGPPeer odd: metadata.annotations[projectcalico.org/metadata]",
		"IPPool two: spec.vxlanMode",
		"Node c: metadata.annotations[projectcalico.org/ASNumber]",
		"Node c: metadata.annotations[projectcalico.org/IPv4Address]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := u.State.Node("c"); n == nil || n.Addr4.IsValid() || n.ASN != 0 || n.Addr6 != netip.MustParsePrefix("2001:db8::3/64") {
		t.Errorf("a bad annotation must be as none, the others stay: %+v", n)
	}
	if p := u.State.BGP().NodeListenPorts["a"]; p != 1790 {
		t.Errorf("listen port %d of a configuration with another bad field", p)
	}
	annotate(t, s, "a", `"projectcalico.org/IPv4Address": "nonsense"`)
	u = o.until("one more problem", func(u datastore.Update) bool { return len(u.State.Problems()) == 6 })
	if a := u.State.Node("a").Addr4; a != netip.MustParsePrefix("192.0.2.1/24") {
		t.Errorf("address %s, want the last good one", a)
	}
}
