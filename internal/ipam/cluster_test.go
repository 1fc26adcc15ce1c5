package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// The fixtures and shorthands of the tests.

func ipPool(name, cidr string, change ...func(*calico.IPPoolSpec)) *calico.IPPool {
	p := &calico.IPPool{Spec: calico.IPPoolSpec{CIDR: cidr}}
	p.Name = name
	for _, f := range change {
		f(&p.Spec)
	}
	return p
}

func size(n int) func(*calico.IPPoolSpec) { return func(s *calico.IPPoolSpec) { s.BlockSize = n } }
func vxlan(s *calico.IPPoolSpec)          { s.VXLANMode = "Always" }
func ipip(s *calico.IPPoolSpec)           { s.IPIPMode = "CrossSubnet" }
func selector(e string) func(*calico.IPPoolSpec) {
	return func(s *calico.IPPoolSpec) { s.NodeSelector = e }
}
func uses(u ...string) func(*calico.IPPoolSpec) {
	return func(s *calico.IPPoolSpec) { s.AllowedUses = u }
}
func disabled(s *calico.IPPoolSpec) { s.Disabled = true }
func manual(s *calico.IPPoolSpec)   { s.AssignmentMode = "Manual" }

func calicoNode(name string, labels ...string) *calico.Node {
	n := &calico.Node{Spec: calico.NodeSpec{BGP: &calico.NodeBGPSpec{IPv4Address: "192.0.2.1/24"}}}
	n.Name = name
	n.Labels = map[string]string{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		n.Labels[k] = v
	}
	return n
}

func ipamConfig(change func(*calico.IPAMConfigurationSpec)) *calico.IPAMConfiguration {
	c := &calico.IPAMConfiguration{}
	c.Name = calico.DefaultName
	change(&c.Spec)
	return c
}

// testLog passes what is logged to the test.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func client(t testing.TB, store datastore.Store, node string) *Client {
	return &Client{Store: store, Node: node, Log: testLog(t)}
}

func workload(handle string, n int) Request {
	return Request{Family: cluster.IPv4, Num: n, Handle: handle, Use: Workload,
		Attrs: map[string]string{"namespace": "default", "pod": handle}}
}

func mustAssign(t testing.TB, c *Client, r Request) []netip.Prefix {
	t.Helper()
	got, err := c.AutoAssign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantCheck(t testing.TB, store datastore.Store) {
	t.Helper()
	objects, err := Load(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(objects); err != nil {
		t.Errorf("the datastore does not agree:\n%v", err)
	}
}

func wantIs(t testing.TB, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want one that is %q", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func getBlock(t testing.TB, store datastore.Store, cidr string) *calico.IPAMBlock {
	t.Helper()
	obj, err := store.Get(t.Context(), calico.KindIPAMBlock, calico.BlockName(netip.MustParsePrefix(cidr)))
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*calico.IPAMBlock)
}

func getNode(t testing.TB, store datastore.Store, name string) *calico.Node {
	t.Helper()
	obj, err := store.Get(t.Context(), calico.KindNode, name)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*calico.Node)
}

// contents lists a store's IPAM objects in short: what is there and in which state.
func contents(t testing.TB, store datastore.Store) (lines []string) {
	t.Helper()
	for _, kind := range []calico.Kind{calico.KindBlockAffinity, calico.KindIPAMBlock, calico.KindIPAMHandle} {
		list, err := store.List(context.Background(), kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, obj := range list {
			lines = append(lines, inShort(obj))
		}
	}
	return lines
}

func inShort(obj calico.Object) string {
	switch o := obj.(type) {
	case *calico.IPAMBlock:
		owner := "-"
		if o.Spec.Affinity != nil {
			owner = *o.Spec.Affinity
		}
		return fmt.Sprintf("block %s %s %d", o.Spec.CIDR, owner, len(o.Spec.Allocations)-len(o.Spec.Unallocated))
	case *calico.BlockAffinity:
		return fmt.Sprintf("affinity %s %s %s", o.Spec.Node, o.Spec.CIDR, o.Spec.State)
	case *calico.IPAMHandle:
		return fmt.Sprintf("handle %s %v", o.Spec.HandleID, o.Spec.Block)
	}
	return obj.Meta().Name
}

// host returns the host prefix of an address.
func host(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}
