package kube

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/test/kubetest"
)

// TestSecrets: only what a session asks for is read, under a right to that one Secret; without it a problem is told and
// everything else goes on.
func TestSecrets(t *testing.T) {
	s, _ := prepare(t, Options{})
	const manifest = `
{apiVersion: v1, kind: Secret, metadata: {name: tor, namespace: kube-system}, stringData: {password: hunter2}}
---
{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: kube-system}, stringData: {password: private}}
`
	s.Apply(t, manifest)
	s.Grant(t, kubetest.Daemon, role)
	t.Cleanup(func() { s.Revoke(t, kubetest.Daemon) })
	o := observe(t, open(t, s, kubetest.Daemon, ""))
	o.until("all", healed)
	s.Apply(t, `{apiVersion: crd.projectcalico.org/v1, kind: BGPPeer, metadata: {name: tor},
  spec: {peerIP: 192.0.2.254, asNumber: 64999, password: {secretKeyRef: {name: tor, key: password}}}}`)
	u := o.until("a problem", func(u datastore.Update) bool { return len(u.State.Problems()) > 0 })
	if p := u.State.Problems()[0]; p.Object != "Secret tor" || !strings.Contains(p.Text, "forbidden") || !strings.Contains(p.Text, "RoleBinding") || u.Err != nil || !u.InSync {
		t.Errorf("%+v, error %v", p, u.Err)
	}
	s.Grant(t, kubetest.Daemon, role+`
- {apiGroups: [""], resources: [secrets], resourceNames: [tor], verbs: [get, list, watch]}
`)
	is := func(password string) func(datastore.Update) bool {
		return func(u datastore.Update) bool {
			x := u.State.Secret("tor")
			return x != nil && x.Data["password"] == password && len(u.State.Problems()) == 0
		}
	}
	u = o.until("the password", is("hunter2"))
	if u.State.Secret("other") != nil {
		t.Error("a Secret was read that nobody asked for")
	}
	s.Apply(t, strings.Replace(manifest, "hunter2", "hunter3", 1))
	o.until("the new password", is("hunter3"))
	s.Apply(t, `{apiVersion: crd.projectcalico.org/v1, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: 192.0.2.254, asNumber: 64999}}`)
	o.until("no password", func(u datastore.Update) bool { return u.State.Secret("tor") == nil })
}

// TestFilters: BGPFilters are read as they are.
func TestFilters(t *testing.T) {
	s, store := prepare(t, Options{})
	o := observe(t, store)
	o.until("all", healed)
	s.Apply(t, `{apiVersion: crd.projectcalico.org/v1, kind: BGPFilter, metadata: {name: f}, spec: {exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, action: Reject}]}}`)
	u := o.until("the filter", func(u datastore.Update) bool { return u.State.BGPFilter("f") != nil })
	rules := u.State.BGPFilter("f").Rules(cluster.IPv4, true)
	if len(rules) != 1 || rules[0].CIDR != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("rules %+v", rules)
	}
	f, err := store.Get(t.Context(), calico.KindBGPFilter, "f")
	if err != nil || store.Delete(t.Context(), f) != nil {
		t.Fatal(err)
	}
	o.until("no filter", func(u datastore.Update) bool { return u.State.BGPFilter("f") == nil })
}
