package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/test/kubetest"
)

// size is how large a cluster is and how much goes on in it.
type size struct {
	nodes, blocks  int
	beats, updates float64       // heartbeats and block updates a second
	noise          time.Duration // how long CPU is measured
	claims         int           // blocks claimed, for the time to the route
}

const (
	self    = "node-0"
	writers = 16
)

// world is the cluster in the API server.
type world struct {
	size
	client dynamic.Interface
}

var nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

func newWorld(t *testing.T, server *kubetest.Server, s size) *world {
	t.Helper()
	w := &world{size: s, client: server.Client(t, kubetest.Admin)}
	w.create(t, kubetest.Classic.Resource("ippools"), map[string]any{
		"apiVersion": string(kubetest.Classic), "kind": "IPPool", "metadata": map[string]any{"name": "pool"},
		"spec": map[string]any{"cidr": "10.0.0.0/9", "blockSize": int64(26), "vxlanMode": "Always", "ipipMode": "Never"},
	})
	w.parallel(t, s.nodes, func(i int) error { return w.put(nodes, w.node(i)) })
	// A block needs its claim first, as in a cluster.
	w.parallel(t, s.blocks, func(i int) error { return w.claim(i, w.owner(i)) })
	return w
}

func (w *world) parallel(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(writers)
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) create(t *testing.T, r schema.GroupVersionResource, obj map[string]any) {
	t.Helper()
	if err := w.put(r, obj); err != nil {
		t.Fatal(err)
	}
}

func (w *world) put(r schema.GroupVersionResource, obj map[string]any) error {
	_, err := w.client.Resource(r).Create(context.Background(), &unstructured.Unstructured{Object: obj}, metav1.CreateOptions{})
	return err
}

// owner is the node of a block; our own has none, it claims what it needs.
func (w *world) owner(block int) int { return 1 + block%(w.nodes-1) }

func name(node int) string { return fmt.Sprint("node-", node) }

// address is a node's own, in one of many subnets of 250 nodes.
func address(node int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, byte(16 + node/62500), byte(node / 250 % 250), byte(1 + node%250)})
}

// block is the range of a block: one /26 after the other.
func block(i int) netip.Prefix {
	i++ // the first is free for our own node
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

// node is a Node as a kubelet of a busy machine writes it, 13 kB of JSON: fifty images are most of it.
func (w *world) node(i int) map[string]any {
	var images []any
	for n := range 50 {
		repo := fmt.Sprintf("registry.example/team-%d/some-service-with-a-name-%d", n%7, n)
		images = append(images, map[string]any{"sizeBytes": int64(100_000_000 + n), "names": []any{
			fmt.Sprintf("%s@sha256:%064x", repo, n*7919), fmt.Sprintf("%s:v1.%d.0", repo, n)}})
	}
	annotations := map[string]any{"projectcalico.org/IPv4Address": address(i).String() + "/24", "node.alpha.kubernetes.io/ttl": "0"}
	if i > 0 {
		annotations["projectcalico.org/IPv4VXLANTunnelAddr"] = block(i - 1).Addr().String()
	}
	var conditions []any
	for _, c := range []string{"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"} {
		conditions = append(conditions, map[string]any{"type": c, "status": "True", "reason": "Kubelet" + c, "message": "kubelet says so",
			"lastHeartbeatTime": "2026-01-31T12:00:00Z", "lastTransitionTime": "2026-01-31T12:00:00Z"})
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": name(i), "annotations": annotations, "labels": map[string]any{
			"kubernetes.io/hostname": name(i), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
			"topology.kubernetes.io/zone": fmt.Sprint("zone-", i%3), "node.kubernetes.io/instance-type": "m7.large"}},
		"status": map[string]any{"images": images, "conditions": conditions,
			"addresses": []any{map[string]any{"type": "InternalIP", "address": address(i).String()}}},
	}
}

// claim writes a block's claim and the block, as Calico's IPAM does.
func (w *world) claim(i, owner int) error {
	cidr := block(i)
	dashed := fmt.Sprintf("%s-26", dashes(cidr.Addr()))
	affinity := map[string]any{
		"apiVersion": string(kubetest.Classic), "kind": "BlockAffinity", "metadata": map[string]any{
			"name": name(owner) + "-" + dashed, "labels": map[string]any{calico.LabelHostnameHash: calico.HostnameHash(name(owner)),
				calico.LabelAffinityType: "host", calico.LabelIPVersion: "4"}},
		"spec": map[string]any{"state": "confirmed", "node": name(owner), "type": "host", "cidr": cidr.String(), "deleted": "false"},
	}
	if err := w.put(kubetest.Classic.Resource("blockaffinities"), affinity); err != nil {
		return err
	}
	spec := contents(name(owner), 0)
	spec["cidr"], spec["affinity"] = cidr.String(), "host:"+name(owner)
	return w.put(kubetest.Classic.Resource("ipamblocks"), map[string]any{
		"apiVersion": string(kubetest.Classic), "kind": "IPAMBlock", "metadata": map[string]any{"name": dashed}, "spec": spec,
	})
}

func dashes(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("%d-%d-%d-%d", b[0], b[1], b[2], b[3])
}

// contents is the part of a block that changes with every pod: some addresses in use, each with its pod's attributes. All are
// used by the block's owner: an address borrowed by another node would be a route of its own.
func contents(owner string, turn int) map[string]any {
	const inUse = 20
	var allocations, unallocated, attributes []any
	for n := range 64 {
		if (n+turn)%64 < inUse {
			allocations = append(allocations, int64(len(attributes)))
			attributes = append(attributes, map[string]any{"handle_id": fmt.Sprintf("k8s-pod-network.%064x", n*104729+turn),
				"secondary": map[string]any{"namespace": "default", "node": owner, "pod": fmt.Sprintf("deployment-%d-%d", n, turn)}})
		} else {
			allocations = append(allocations, nil)
			unallocated = append(unallocated, int64(n))
		}
	}
	return map[string]any{"allocations": allocations, "unallocated": unallocated, "attributes": attributes,
		"sequenceNumber": int64(turn), "strictAffinity": false}
}

// beat is a kubelet's report: the time of a condition, nothing else.
func (w *world) beat(ctx context.Context, turn int) error {
	text := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`,
		time.Now().UTC().Format(time.RFC3339))
	_, err := w.client.Resource(nodes).Patch(ctx, name(turn%w.nodes), types.StrategicMergePatchType, text, metav1.PatchOptions{}, "status")
	return err
}

// update is a pod that comes or goes: a block's contents change, its owner does not.
func (w *world) update(ctx context.Context, turn int) error {
	at := turn * 37 % w.blocks
	text, err := json.Marshal(map[string]any{"spec": contents(name(w.owner(at)), turn)})
	if err != nil {
		return err
	}
	where := fmt.Sprintf("%s-26", dashes(block(at).Addr()))
	_, err = w.client.Resource(kubetest.Classic.Resource("ipamblocks")).Patch(ctx, where, types.MergePatchType, text, metav1.PatchOptions{})
	return err
}
