package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/test/kubetest"
)

const extraBlock = `{apiVersion: crd.projectcalico.org/v1, kind: IPAMBlock, metadata: {name: 10-0-%[1]d-0-31},
  spec: {cidr: 10.0.%[1]d.0/31, affinity: "host:a", strictAffinity: false, allocations: [null, null], unallocated: [0, 1], attributes: []}}`

func hasBlock(n int) func(datastore.Update) bool {
	return func(u datastore.Update) bool {
		return u.InSync && u.State.Block(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 0}), 31)) != nil
	}
}

func not(f func(datastore.Update) bool) func(datastore.Update) bool {
	return func(u datastore.Update) bool { return !f(u) }
}

// prepare puts cluster1 on the shared server and opens it with the options a test has.
func prepare(t *testing.T, opts Options) (*kubetest.Server, *Store) {
	t.Helper()
	s := shared.Get(t)
	s.Clear(t, kubetest.Classic, kubetest.Native)
	s.Apply(t, cluster1)
	opts.Config = s.Config(kubetest.Admin)
	store, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s, store
}

// TestAPIServerGoesAndComesBack: killed, and ended as in a rolling update. Meanwhile the last good state stays; afterwards
// changes are seen, soon. Who starts meanwhile is in sync when the server is there; that it then answers 403 to everybody
// for a moment ends nothing.
func TestAPIServerGoesAndComesBack(t *testing.T) {
	s, store := prepare(t, Options{})
	s.Grant(t, kubetest.Daemon, role)
	t.Cleanup(func() { s.Revoke(t, kubetest.Daemon) })
	o := observe(t, store)
	o.until("what is there", hasNodes("a"))
	for i, end := range []func(){s.KillAPIServer, s.EndAPIServer} {
		end()
		// A read that was under way is reset; the next one says what is the matter.
		u := o.until("an error that says so", func(u datastore.Update) bool { return failed(u) && strings.Contains(u.Err.Error(), "refused") })
		if !strings.Contains(u.Err.Error(), s.URL()) {
			t.Errorf("error %q", u.Err)
		}
		late := observe(t, open(t, s, kubetest.Daemon, ""))
		if u := late.until("an error", failed); u.InSync {
			t.Error(show(u))
		}
		s.StartAPIServer(t)
		ready := time.Now()
		s.Apply(t, fmt.Sprintf(extraBlock, 10+i))
		o.until("the new block", hasBlock(10+i))
		o.until("no error", healed)
		late.until("all", func(u datastore.Update) bool { return healed(u) && hasBlock(10+i)(u) })
		took := time.Since(ready)
		t.Logf("caught up %s after the server was ready", took.Round(time.Millisecond))
		if limit := 8 * time.Second; took > limit {
			t.Errorf("more than %s", limit)
		}
	}
	o.every("complete and not suspect", func(u datastore.Update) bool { return hasNodes("a")(u) && u.Suspect == "" })
}

// TestEtcdGoesAndComesBack: the API server answers what it remembers; when etcd is back, changes are seen.
func TestEtcdGoesAndComesBack(t *testing.T) {
	s, store := prepare(t, Options{Timeout: 2 * time.Second})
	o := observe(t, store)
	o.until("what is there", hasNodes("a"))
	s.KillEtcd()
	_, err := store.Create(t.Context(), &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: "h"}})
	if err == nil {
		t.Error("a write went through without etcd")
	}
	s.StartEtcd(t)
	kubetest.Eventually(t, "a write", func() error {
		_, err := store.Create(t.Context(), &calico.IPPool{ObjectMeta: calico.ObjectMeta{Name: "new"}, Spec: calico.IPPoolSpec{CIDR: "10.9.0.0/16"}})
		return err
	})
	o.until("a new pool", func(u datastore.Update) bool { return healed(u) && len(u.State.Pools()) == 2 })
	o.every("complete and not suspect", func(u datastore.Update) bool { return hasNodes("a")(u) && u.Suspect == "" })
}

// TestOldEtcd: etcd comes back as it was some time ago. What is missing is missing, but the list is told to be suspect
// until the server has written as much as it lost.
func TestOldEtcd(t *testing.T) {
	s, store := prepare(t, Options{Doubt: 100 * time.Millisecond})
	o := observe(t, store)
	o.until("what is there", hasNodes("a"))
	backup := s.SaveEtcd(t)
	for i := range 30 {
		s.Apply(t, fmt.Sprintf(extraBlock, 20+i))
	}
	o.until("all blocks", hasBlock(49))
	s.RestoreEtcd(t, backup)
	u := o.until("a list without the blocks", not(hasBlock(49)))
	if !strings.Contains(u.Suspect, "IPAMBlock") || !strings.Contains(u.Suspect, "resourceVersion") || !u.InSync || len(u.State.Blocks()) != 1 {
		t.Error(show(u))
	}
	for i := range 40 {
		s.Apply(t, fmt.Sprintf(extraBlock, 60+i))
	}
	u = o.until("the new blocks", hasBlock(99))
	o.until("no doubt", func(u datastore.Update) bool { return u.Suspect == "" })
	o.every("suspect where blocks are missing", func(u datastore.Update) bool {
		return u.Suspect != "" || hasBlock(49)(u) == hasBlock(20)(u) || !hasBlock(60)(u)
	})
}

// TestEmptyEtcd: etcd comes back with nothing in it. Without definitions nothing can be read, so what was read stays;
// when they are installed again, everything is gone, and that is told to be suspect.
func TestEmptyEtcd(t *testing.T) {
	s, store := prepare(t, Options{})
	s.Apply(t, fmt.Sprintf(extraBlock, 10))
	o := observe(t, store)
	o.until("what is there", hasBlock(10))
	s.RestoreEtcd(t, "")
	u := o.until("an error", func(u datastore.Update) bool {
		return failed(u) && strings.Contains(u.Err.Error(), "CustomResourceDefinition")
	})
	if !hasBlock(10)(u) {
		t.Error(show(u))
	}
	chooseGroup(t, s)
	u = o.until("no blocks", func(u datastore.Update) bool { return healed(u) && len(u.State.Blocks()) == 0 })
	if u.Suspect == "" {
		t.Error(show(u))
	}
	o.every("suspect where something is missing", func(u datastore.Update) bool {
		return u.Suspect != "" || len(u.State.Blocks()) == 2 && len(u.State.Nodes()) == 1 && len(u.State.Pools()) == 1
	})
}

// chooseGroup installs the definitions in a cluster without any. Calico's rule says which of them is used.
func chooseGroup(t *testing.T, s *kubetest.Server) {
	fresh := func() *Store { return open(t, s, kubetest.Admin, "") }
	if f, err := fresh().form(t.Context()); !errors.Is(err, errNoCalico) {
		t.Errorf("with neither: %v, %v", f, err)
	}
	// A store that is told to use what is not there must not take a missing definition for a missing object.
	_, err := open(t, s, kubetest.Admin, kubetest.Classic).Get(t.Context(), calico.KindIPPool, "x")
	if err == nil || errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("get without a definition: %v", err)
	}
	o := observe(t, fresh())
	if u := o.until("an error", failed); u.InSync || !strings.Contains(u.Err.Error(), "deploy/crds") {
		t.Error(show(u))
	}
	s.InstallCRDs(t, kubetest.Native)
	// Discovery follows a moment after a definition is served.
	kubetest.Eventually(t, "the native form", func() error {
		if f, err := fresh().form(t.Context()); err != nil || f != native {
			return fmt.Errorf("%v, %w", f, err)
		}
		return nil
	})
	o.until("all", healed)
	s.InstallCRDs(t, kubetest.Classic)
	kubetest.Eventually(t, "the classic form", func() error {
		if f, err := fresh().form(t.Context()); err != nil || f != classic {
			return fmt.Errorf("%v, %w", f, err)
		}
		return nil
	})
	if _, err := Open(t.Context(), Options{Config: s.Config(kubetest.Admin), APIGroup: "neither"}); err == nil {
		t.Error("opened with a group that does not exist")
	}
}

// role is all that Watch, IPAM and PatchNode need.
const role = `
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [nodes/status], verbs: [patch]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [calico-config], verbs: [list, watch]}
- apiGroups: [crd.projectcalico.org, projectcalico.org]
  resources: [ippools, bgpconfigurations, bgppeers, bgpfilters, felixconfigurations, ipamblocks, blockaffinities]
  verbs: [get, list, watch]
- apiGroups: [crd.projectcalico.org, projectcalico.org]
  resources: [ipamblocks, blockaffinities, ipamhandles]
  verbs: [get, list, create, update, delete]
- {apiGroups: [crd.projectcalico.org, projectcalico.org], resources: [ipamconfigs, ipamconfigurations], verbs: [get]}
`

// TestForbiddenAtStart: without rights nothing is in sync, and the error says what is missing; with them, no restart is
// needed, and the least rights are enough.
func TestForbiddenAtStart(t *testing.T) {
	s, _ := prepare(t, Options{})
	s.Revoke(t, kubetest.Daemon)
	t.Cleanup(func() { s.Revoke(t, kubetest.Daemon) })
	store := open(t, s, kubetest.Daemon, "")
	o := observe(t, store)
	u := o.until("an error", failed)
	if u.InSync || !strings.Contains(u.Err.Error(), " is forbidden") || !strings.Contains(u.Err.Error(), "deploy/") {
		t.Error(show(u))
	}
	s.Grant(t, kubetest.Daemon, role)
	began := time.Now()
	o.until("all, after the role was granted", func(u datastore.Update) bool { return healed(u) && hasNodes("a")(u) })
	t.Logf("in sync %s after the role was granted", time.Since(began).Round(time.Millisecond))

	addr := netip.MustParseAddr("10.0.0.9")
	if err := store.PatchNode(t.Context(), "a", datastore.NodePatch{IPIPAddr: &addr}); err != nil {
		t.Error(err)
	}
	o.until("the patch", func(u datastore.Update) bool { return u.State.Node("a").IPIPAddr == addr })
	ensureTunnel(t, store, "a")
	if _, err := store.Create(t.Context(), &calico.Node{ObjectMeta: calico.ObjectMeta{Name: "x"}}); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("create a node: %v", err)
	}
}

// TestUpdateKeepsWhatIsNotRead: fields of another release, within lists too, labels and annotations of others.
func TestUpdateKeepsWhatIsNotRead(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		t.Run(string(form), func(t *testing.T) {
			s := shared.Get(t)
			s.Clear(t, form)
			s.Apply(t, inForm(form, strings.NewReplacer("secondary: {node: a}", "secondary: {node: a}, later: 1", "strictAffinity: false", "strictAffinity: false\n  later: {x: 2}",
				"metadata: {name: 10-0-0-0-30, annotations: {", "metadata: {name: 10-0-0-0-30, labels: {own: x}, finalizers: [somebody.else/f], annotations: {kept: k, ").Replace(cluster1)))
			store := open(t, s, kubetest.Admin, form)
			obj, err := store.Get(t.Context(), calico.KindIPAMBlock, "10-0-0-0-30")
			if err != nil {
				t.Fatal(err)
			}
			b := obj.(*calico.IPAMBlock)
			b.Spec.Attributes = b.Spec.Attributes[:1]
			b.Spec.Allocations[2], b.Spec.Unallocated = nil, []int{0, 3, 2}
			b.Labels["new"] = "y"
			if _, err := store.Update(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			c := s.Client(t, kubetest.Admin).Resource(form.Resource("ipamblocks"))
			u, err := c.Get(t.Context(), b.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			spec := u.Object["spec"].(map[string]any)
			attrs, _, _ := unstructured.NestedSlice(spec, "attributes")
			if len(attrs) != 1 || fmt.Sprint(attrs[0]) != "map[handle_id:h later:1 secondary:map[node:a]]" || fmt.Sprint(spec["later"]) != "map[x:2]" ||
				fmt.Sprint(spec["allocations"]) != "[<nil> 0 <nil> <nil>]" {
				t.Errorf("spec %v", spec)
			}
			if u.GetLabels()["own"] != "x" || u.GetAnnotations()["kept"] != "k" || len(u.GetFinalizers()) != 1 {
				t.Errorf("metadata %v", u.Object["metadata"])
			}
			again, err := store.Get(t.Context(), calico.KindIPAMBlock, b.Name)
			if err != nil || again.Meta().Labels["new"] != "y" || again.Meta().Labels["own"] != "x" {
				t.Errorf("%v %v", again.Meta(), err)
			}
			inner := u.GetAnnotations()[metadataAnnotation]
			if want := `{"creationTimestamp":null,"labels":{"new":"y"}}`; form == kubetest.Classic && inner != want {
				t.Errorf("annotation %s, want %s", inner, want)
			}
			u.SetFinalizers(nil)
			if _, err := c.Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
