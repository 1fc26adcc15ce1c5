package kube

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/ipam"
	"github.com/caracal-net/caracal/test/kubetest"
)

func ensureTunnel(t testing.TB, store datastore.Store, node string) {
	t.Helper()
	if err := (&ipam.Client{Store: store, Node: node}).EnsureTunnelAddresses(t.Context()); err != nil {
		t.Errorf("%s: %v", node, err)
	}
}

// TestFiftyClaimers: fifty nodes that start at one moment each get a block and a tunnel address.
func TestFiftyClaimers(t *testing.T) {
	const nodes = 50
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		t.Run(string(form), func(t *testing.T) {
			s := shared.Get(t)
			s.Clear(t, form)
			admin := open(t, s, kubetest.Admin, form)
			pool := &calico.IPPool{ObjectMeta: calico.ObjectMeta{Name: "pool"}, Spec: calico.IPPoolSpec{CIDR: "10.0.0.0/22", BlockSize: 28, VXLANMode: "Always"}}
			objects := []calico.Object{pool}
			for i := range nodes {
				objects = append(objects, &calico.Node{ObjectMeta: calico.ObjectMeta{Name: fmt.Sprint("node-", i)},
					Spec: calico.NodeSpec{BGP: &calico.NodeBGPSpec{IPv4Address: fmt.Sprintf("192.0.2.%d/24", i+1)}}})
			}
			for _, obj := range objects {
				if _, err := admin.Create(t.Context(), obj); err != nil {
					t.Fatal(err)
				}
			}
			s.Grant(t, kubetest.Daemon, role)
			t.Cleanup(func() { s.Revoke(t, kubetest.Daemon) })
			kubetest.Eventually(t, "the role", func() error {
				_, err := open(t, s, kubetest.Daemon, form).List(t.Context(), calico.KindIPAMHandle)
				return err
			})
			began := time.Now()
			var all sync.WaitGroup
			for i := range nodes {
				all.Go(func() { ensureTunnel(t, open(t, s, kubetest.Daemon, form), fmt.Sprint("node-", i)) })
			}
			all.Wait()
			took := time.Since(began)
			t.Logf("%d nodes in %s", nodes, took.Round(time.Millisecond))
			if limit := 30 * time.Second; took > limit {
				t.Errorf("more than %s", limit)
			}
			objects, err := ipam.Load(t.Context(), admin)
			if err != nil {
				t.Fatal(err)
			}
			if err := ipam.Check(objects); err != nil {
				t.Error(err)
			}
			blocks, addrs := 0, map[string]string{}
			for _, obj := range objects {
				switch o := obj.(type) {
				case *calico.IPAMBlock:
					blocks++
				case *calico.Node:
					a := o.Spec.IPv4VXLANTunnelAddr
					if other := addrs[a]; a == "" || other != "" {
						t.Errorf("%s and %s have address %q", o.Name, other, a)
					}
					addrs[a] = o.Name
				}
			}
			if blocks != nodes || len(addrs) != nodes {
				t.Errorf("%d blocks and %d addresses for %d nodes", blocks, len(addrs), nodes)
			}
		})
	}
}
