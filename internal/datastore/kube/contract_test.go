package kube

import (
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
	"github.com/caracal-net/caracal/test/kubetest"
)

var shared kubetest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// open returns a Store of a server, as a user, in one form of the resources.
func open(t testing.TB, s *kubetest.Server, user string, form kubetest.Form) *Store {
	t.Helper()
	store, err := Open(t.Context(), Options{Config: s.Config(user), APIGroup: string(form)})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestContract(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		t.Run(string(form), func(t *testing.T) {
			server := shared.Get(t)
			datastoretest.Contract(t, func(t *testing.T) datastore.Store {
				server.Clear(t, form)
				return open(t, server, kubetest.Admin, form)
			})
			datastoretest.ContractStart(t, func(t *testing.T) datastore.Store {
				server.Clear(t, form)
				return open(t, server, kubetest.Admin, form)
			})
		})
	}
}

func TestContractWatch(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		t.Run(string(form), func(t *testing.T) {
			server := shared.Get(t)
			datastoretest.ContractWatch(t, func(t *testing.T) datastoretest.Place {
				server.Clear(t, kubetest.Classic, kubetest.Native)
				store, err := Open(t.Context(), Options{Config: server.Config(kubetest.Admin), APIGroup: string(form), PodsOf: "node-a"})
				if err != nil {
					t.Fatal(err)
				}
				return datastoretest.Place{
					Watcher: store,
					Put: func(manifest string) {
						server.Apply(t, strings.ReplaceAll(manifest, string(kubetest.Native), string(form)))
					},
					Remove: func(kind calico.Kind, name string) {
						now, at := int64(0), strings.Split(name, "/")
						err := server.Client(t, kubetest.Admin).Resource(classic.resource(kind)).Namespace(at[0]).
							Delete(t.Context(), at[1], metav1.DeleteOptions{GracePeriodSeconds: &now})
						if err != nil {
							t.Fatal(err)
						}
					},
				}
			})
		})
	}
}

// TestServicesAreReadOnDemand: nobody asks for Services before an address of one is to be announced; then the first State in sync has them; when
// nothing is announced any more they go. A daemon that may not read them says so.
func TestServicesAreReadOnDemand(t *testing.T) {
	server := shared.Get(t)
	server.Clear(t, kubetest.Classic, kubetest.Native)
	server.Grant(t, kubetest.Daemon, readsCalico)
	conf := func(spec string) {
		server.Apply(t, "apiVersion: crd.projectcalico.org/v1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: "+spec)
	}
	has := func(want bool) func(datastore.Update) bool {
		return func(u datastore.Update) bool { return healed(u) && len(u.State.Services()) > 0 == want }
	}
	conf("{}")
	o := observe(t, open(t, server, kubetest.Daemon, kubetest.Classic))
	o.until("no Services", has(false))
	conf("{serviceClusterIPs: [{cidr: 10.96.0.0/16}]}")
	u := o.until("a refusal", failed)
	if !u.InSync || !strings.Contains(u.Err.Error(), "Service") || !strings.Contains(u.Err.Error(), "ClusterRole") {
		t.Errorf("in sync: %v, error: %v", u.InSync, u.Err)
	}
	server.Grant(t, kubetest.Daemon, readsCalico+`
- {apiGroups: [""], resources: [services], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}`)
	o.until("Services", has(true))
	second := observe(t, open(t, server, kubetest.Daemon, kubetest.Classic))
	second.until("Services", has(true))
	second.every("without Services before it is in sync", func(u datastore.Update) bool { return !u.InSync || len(u.State.Services()) > 0 })
	conf("{serviceClusterIPs: []}")
	o.until("no Services", has(false))
	conf("{serviceClusterIPs: [{cidr: 10.96.0.0/16}]}")
	o.until("Services again", has(true))
}

// TestPodsAreReadOnDemand: a node's own Pods are read while a BGPPeer has workloads for peers; a daemon that may not read them goes on without, and says so.
func TestPodsAreReadOnDemand(t *testing.T) {
	server := shared.Get(t)
	server.Clear(t, kubetest.Classic, kubetest.Native)
	server.Grant(t, kubetest.Daemon, readsCalico)
	options := func() Options {
		return Options{Config: server.Config(kubetest.Daemon), APIGroup: string(kubetest.Classic), Node: "node-a"}
	}
	store, err := Open(t.Context(), options())
	if err != nil {
		t.Fatal(err)
	}
	server.Apply(t, `{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: default, labels: {color: red}}, spec: {nodeName: node-a, containers: [{name: c, image: i}]}, status: {podIP: 10.0.0.4}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: default, labels: {color: red}}, spec: {nodeName: node-b, containers: [{name: c, image: i}]}, status: {podIP: 10.0.9.4}}
`)
	has := func(want bool) func(datastore.Update) bool {
		return func(u datastore.Update) bool { return healed(u) && len(u.State.Pods()) > 0 == want }
	}
	o := observe(t, store)
	o.until("no Pods", has(false))
	peer := "{apiVersion: crd.projectcalico.org/v1, kind: BGPPeer, metadata: {name: red}, spec: {asNumber: 65401, localWorkloadSelector: color == 'red'}}"
	server.Apply(t, peer)
	u := o.until("a problem", func(u datastore.Update) bool { return len(u.State.Problems()) > 0 })
	if p := u.State.Problems()[0]; p.Object != "Pods of node-a" || !strings.Contains(p.Text, "forbidden") || !u.InSync || u.Err != nil {
		t.Errorf("%+v, in sync %v, error %v", p, u.InSync, u.Err)
	}
	refused, err := Open(t.Context(), options())
	if err != nil {
		t.Fatal(err)
	}
	observe(t, refused).until("in sync without them", func(u datastore.Update) bool { return u.InSync })
	server.Grant(t, kubetest.Daemon, readsCalico+`
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}`)
	u = o.until("Pods", has(true))
	if all := u.State.Pods(); len(all) != 1 || all[0].Name != "default/web-0" || all[0].Labels["color"] != "red" || len(u.State.Problems()) > 0 {
		t.Errorf("%+v, problems %v", all, u.State.Problems())
	}
	second, err := Open(t.Context(), options())
	if err != nil {
		t.Fatal(err)
	}
	so := observe(t, second)
	so.until("Pods", has(true))
	so.every("without Pods before it is in sync", func(u datastore.Update) bool { return !u.InSync || len(u.State.Pods()) > 0 })
	server.Apply(t, strings.Replace(peer, "localWorkloadSelector: color == 'red'", "peerIP: 192.0.2.1", 1))
	o.until("no Pods again", has(false))
}

const readsCalico = `
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [configmaps], verbs: [list, watch]}
- {apiGroups: [crd.projectcalico.org], resources: ["*"], verbs: [get, list, watch]}`
