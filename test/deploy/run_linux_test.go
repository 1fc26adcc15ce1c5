package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/kubetest"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/workload"
)

// remote is another node with a block, as its own daemon would have written them.
const remote = `
apiVersion: v1
kind: Node
metadata:
  name: node-b
  annotations: {projectcalico.org/IPv4Address: 198.51.100.2/24, projectcalico.org/IPv4VXLANTunnelAddr: 192.168.9.0}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMBlock
metadata: {name: 192-168-9-0-26}
spec: {cidr: 192.168.9.0/26, affinity: "host:node-b", allocations: [%s], unallocated: [], attributes: [], deleted: false, strictAffinity: false}
`

// announcing has addresses of Services announced.
const announcing = `
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 10.96.0.0/16}]}
`

// badPeer says nothing of whom to peer with.
const badPeer = `
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: bad}
spec: {asNumber: 65000}
`

// told reports whether there is an Event on the bad BGPPeer.
func told(t *testing.T, server *kubetest.Server) error {
	t.Helper()
	events := schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}
	list, err := server.Client(t, kubetest.Admin).Resource(events).Namespace("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, e := range list.Items {
		if about, _, _ := unstructured.NestedString(e.Object, "regarding", "name"); about == "bad" {
			return nil
		}
	}
	return fmt.Errorf("%d Events, none on it", len(list.Items))
}

// webPod is a workload of the node, as the kubelet tells of it.
const webPod = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec: {nodeName: node-a, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 192.168.7.9}], podIP: 192.168.7.9}
`

// workloadSet reports whether the workload is routed to and its interface answers for everybody.
func workloadSet(ns netns.NS, cali string) error {
	out, err := ns.Run("ip", "route", "show", "192.168.7.9", "proto", "202")
	if err == nil && !strings.Contains(out, "dev "+cali+" scope link") {
		err = fmt.Errorf("its route is %q", out)
	}
	if err != nil {
		return err
	}
	out, err = ns.Run("sysctl", "-n", "net.ipv4.conf."+cali+".proxy_arp")
	if err == nil && strings.TrimSpace(out) != "1" {
		err = fmt.Errorf("proxy_arp is %q", out)
	}
	return err
}

const local = `{apiVersion: v1, kind: Node, metadata: {name: node-a}}`

// TestPod runs the daemon as the manifests say, and no other way: with the environment of the DaemonSet, the token and rights of its
// service account, its capabilities, its mounts and its probes, out of an image that is two files.
func TestPod(t *testing.T) {
	need.Root(t)
	asked, granted := map[string]bool{}, map[string]bool{} // by all of them: a pool without encapsulation needs no IPAM
	for overlay, want := range map[string]struct {
		bgp   bool
		route netip.Prefix // of the remote block
	}{
		"vxlan": {false, netip.MustParsePrefix("192.168.9.0/26")},
		"alone": {true, netip.Prefix{}},
	} {
		t.Run(overlay, func(t *testing.T) {
			objects := render(t, overlay)
			server, audit := audited(t)
			apply(t, server, objects)
			server.Apply(t, local)
			more := announcing
			if want.route.IsValid() {
				more = fmt.Sprintf(remote, strings.Repeat("null,", 64))
			}
			kubetest.Eventually(t, "the definitions are served", func() error {
				objects := kubetest.Parse(t, []byte(more))
				return server.Accepts(t, objects[len(objects)-1])
			})
			server.Apply(t, more)
			server.Apply(t, webPod)
			server.Apply(t, badPeer)
			ns := hostNetwork(t)
			cali := (&workload.Endpoint{Namespace: "default", Pod: "web"}).Interface()
			if _, err := ns.Run("ip", "link", "add", cali, "up", "type", "veth", "peer", "name", "inside"); err != nil {
				t.Fatal(err)
			}
			server.Relay(t, ns)
			spec := podOf(t, objects)
			p := newPod(t, ns, spec, programs(t), variables(t, server, "node-a", objects), account(t, server))
			stop := p.start(t)
			c := &spec.Containers[0]
			kubetest.Eventually(t, "live", func() error { return p.probe(t, c.LivenessProbe) })
			kubetest.Eventually(t, "ready", func() error { return p.probe(t, c.ReadinessProbe) })
			kubetest.Eventually(t, "the node is in the cluster", func() error { return introduced(t, server) })
			if want.route.IsValid() {
				kubetest.Eventually(t, "route", func() error { return routed(t, ns, want.route) })
			}
			kubetest.Eventually(t, "the workload", func() error { return workloadSet(ns, cali) })
			kubetest.Eventually(t, "an Event on what is wrong", func() error { return told(t, server) })
			if open := listens(ns, "179"); open != want.bgp {
				t.Errorf("port 179 is open: %v, want %v", open, want.bgp)
			}
			if took := stop(); took > time.Duration(*spec.TerminationGracePeriodSeconds)*time.Second {
				t.Errorf("the stop took %s, the pod has %d s", took, *spec.TerminationGracePeriodSeconds)
			}
			if want.route.IsValid() {
				if err := routed(t, ns, want.route); err != nil {
					t.Errorf("after the stop: %v", err)
				}
			}
			maps.Copy(asked, asks(t, audit))
			maps.Copy(granted, grants(t, objects))
		})
	}
	if len(granted) < 20 {
		t.Errorf("only %d rights were found in the manifests", len(granted))
	}
	for what := range granted {
		verb, _, _ := strings.Cut(what, " ")
		if !asked[what] && unused()[what] == "" && unused()[verb] == "" {
			t.Errorf("%s is allowed, and nothing asked for it", what)
		}
	}
}

// felixSettings are those of docs/beside-felix.md.
const felixSettings = `
apiVersion: crd.projectcalico.org/v1
kind: FelixConfiguration
metadata: {name: default}
spec: {vxlanEnabled: false, programClusterRoutes: Disabled}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {programClusterRoutes: Enabled}
`

// felix is a cluster of Calico's with these settings.
const felix = felixSettings + `---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 192.168.0.0/16, blockSize: 26, vxlanMode: Always, ipipMode: Never}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: calico-config, namespace: kube-system}
data: {calico_backend: vxlan}
`

// TestPodBesideFelix: the overlay's daemon programs what the settings give it through devices of its own, and touches nothing of Felix's.
func TestPodBesideFelix(t *testing.T) {
	need.Root(t)
	objects := render(t, "beside-felix")
	server := kubetest.Start(t)
	server.InstallCRDs(t, kubetest.Classic)
	server.Apply(t, felix)
	apply(t, server, objects)
	server.Apply(t, local)
	server.Apply(t, fmt.Sprintf(remote, strings.Repeat("null,", 64)))
	ns := hostNetwork(t)
	for _, line := range []string{"link add vxlan.calico type vxlan id 77 dstport 4790 dev eth0", "addr add 192.168.7.7/32 dev vxlan.calico", "link set vxlan.calico up",
		"route add 192.168.9.64/26 via 192.0.2.7 dev eth0 proto 80"} {
		if _, err := ns.Run("ip", strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
	before, err := ns.Run("ip", "-4", "-d", "addr", "show", "dev", "vxlan.calico")
	if err != nil {
		t.Fatal(err)
	}
	server.Relay(t, ns)
	spec := podOf(t, objects)
	p := newPod(t, ns, spec, programs(t), variables(t, server, "node-a", objects), account(t, server))
	stop := p.start(t)
	kubetest.Eventually(t, "ready", func() error { return p.probe(t, spec.Containers[0].ReadinessProbe) })
	kubetest.Eventually(t, "route through our device", func() error {
		out, err := ns.Run("ip", "route", "show", "192.168.9.0/26")
		if err == nil && !strings.Contains(out, "dev vxlan.caracal proto 202") {
			err = fmt.Errorf("%q", out)
		}
		return err
	})
	status, err := p.output(t, "/caracal", "status")
	if err != nil || !strings.Contains(status, "1 routes of Felix") || !strings.Contains(status, "vxlanEnabled: false") {
		t.Errorf("the other programmer is not told: %v\n%s", err, status)
	}
	stop()
	if after, err := ns.Run("ip", "-4", "-d", "addr", "show", "dev", "vxlan.calico"); err != nil || after != before {
		t.Errorf("Felix's device was %s, is %s, %v", before, after, err)
	}
	if out, err := ns.Run("ip", "route", "show", "proto", "80"); err != nil || !strings.Contains(out, "192.168.9.64/26") {
		t.Errorf("Felix's route is gone: %q, %v", out, err)
	}
}

// TestPodIsReallyConfined: what the container does not have, a process in it cannot do, so that TestPod says something.
func TestPodIsReallyConfined(t *testing.T) {
	need.Root(t)
	for _, c := range []struct {
		caps []string
		want bool
	}{{nil, false}, {[]string{"NET_BIND_SERVICE"}, false}, {[]string{"NET_ADMIN"}, true}} {
		ns := need.Namespace(t)
		if _, err := ns.Run("ip", "route", "add", "203.0.113.0/24", "dev", "lo", "proto", "202"); err != nil {
			t.Fatal(err)
		}
		p := newPod(t, ns, podOf(t, render(t, "alone")), programs(t), nil, nil)
		p.child.Caps = c.caps
		if out, err := p.output(t, "/caracald", "cleanup"); (err == nil) != c.want {
			t.Errorf("with capabilities %v the route was removed: %v: %s", c.caps, err, out)
		}
	}
}

// programs are the static programs of the image.
func programs(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("CARACAL_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "../../cmd/caracald", "../../cmd/caracal")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// hostNetwork is a host's network with one address.
func hostNetwork(t *testing.T) netns.NS {
	t.Helper()
	ns := need.Namespace(t)
	for _, line := range []string{"link add eth0 type veth peer name switch", "link set eth0 up", "link set switch up",
		"addr add 192.0.2.1/24 dev eth0", "route add default via 192.0.2.254"} {
		if _, err := ns.Run("ip", strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
	return ns
}

func apply(t *testing.T, server *kubetest.Server, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, obj := range objects {
		text, err := obj.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		server.Apply(t, string(text))
	}
}

// variables are the container's, with those by which the kubelet tells of the API server.
func variables(t *testing.T, server *kubetest.Server, node string, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	env := environment(t, &podOf(t, objects).Containers[0], node, objects)
	host, port, err := net.SplitHostPort(strings.TrimPrefix(server.URL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"] = host, port
	return env
}

// account is what the kubelet mounts of a service account.
func account(t *testing.T, server *kubetest.Server) map[string]string {
	t.Helper()
	accounts := schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	request := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"metadata": map[string]any{"name": "caracald"}, "spec": map[string]any{}}}
	got, err := server.Client(t, kubetest.Admin).Resource(accounts).Namespace("kube-system").Create(t.Context(), request, metav1.CreateOptions{}, "token")
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := unstructured.NestedString(got.Object, "status", "token")
	if err != nil || token == "" {
		t.Fatalf("no token: %v", err)
	}
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	return map[string]string{dir + "token": token, dir + "ca.crt": string(server.Config(kubetest.Admin).CAData), dir + "namespace": "kube-system"}
}

// introduced reports whether the Node says what a started node says.
func introduced(t *testing.T, server *kubetest.Server) error {
	t.Helper()
	nodes := schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	n, err := server.Client(t, kubetest.Admin).Resource(nodes).Get(t.Context(), "node-a", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if a := n.GetAnnotations()["projectcalico.org/IPv4Address"]; a != "192.0.2.1/24" {
		return fmt.Errorf("its address is %q", a)
	}
	conditions, _, _ := unstructured.NestedSlice(n.Object, "status", "conditions")
	for _, c := range conditions {
		if m := c.(map[string]any); m["type"] == "NetworkUnavailable" && m["status"] == "False" {
			return nil
		}
	}
	return fmt.Errorf("conditions %v", conditions)
}

func routed(t *testing.T, ns netns.NS, dst netip.Prefix) error {
	t.Helper()
	k, err := kernel.Open(kernel.Options{Namespace: ns.Path()})
	if err != nil {
		return err
	}
	defer k.Close()
	found := false
	err = k.ListRoutes(t.Context(), false, func(r *kernel.Route) bool {
		found = found || r.Dst == dst && r.Protocol == kernel.ProtoCaracal
		return true
	})
	if err == nil && !found {
		err = fmt.Errorf("no route to %s", dst)
	}
	return err
}

func listens(ns netns.NS, port string) bool {
	out, err := ns.Run("ss", "-Hltn", "sport = :"+port)
	return err == nil && strings.TrimSpace(out) != ""
}

// record is a line of the audit log.
type record struct {
	Verb      string
	User      struct{ Username string }
	ObjectRef *struct{ Resource, Subresource, APIGroup string }
	Response  struct{ Code int } `json:"responseStatus"`
}

// audited starts a server that writes down what the daemon's service account asks for, and returns the file.
func audited(t *testing.T) (server *kubetest.Server, log string) {
	t.Helper()
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	text := `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:kube-system:caracald"]}
- {level: None}
`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubetest.Start(t, "--audit-policy-file="+policy, "--audit-log-path="+log), log
}

// unused are rights, or verbs, that a first start does not need, and why they are there.
func unused() map[string]string {
	const release = "a pool that goes away, a claim that another node has won, a repair after a crash"
	return map[string]string{
		"list":   "API servers before 1.34 have no streaming lists; and a watch that goes on asks for the server's version",
		"delete": release, "update ipamhandles": release,
		"update clusterinformations": "what is missing of one that Calico has made",
	}
}

// asks returns what was asked for. Nothing may have been refused.
func asks(t *testing.T, log string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil || len(text) == 0 {
		t.Fatalf("nothing was written down: %v", err)
	}
	asked := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.ObjectRef == nil {
			continue
		}
		what := r.Verb + " " + strings.Trim(r.ObjectRef.Resource+"/"+r.ObjectRef.Subresource, "/")
		asked[what] = true
		if r.Response.Code == 403 {
			t.Errorf("%s was refused: the roles must allow it", what)
		}
	}
	return asked
}

// grants are the rights in the manifest, without those for the API group that this cluster does not have.
func grants(t *testing.T, objects []*unstructured.Unstructured) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, obj := range objects {
		if k := obj.GetKind(); k != "ClusterRole" && k != "Role" {
			continue
		}
		rules, _, err := unstructured.NestedSlice(obj.Object, "rules")
		if err != nil {
			t.Fatal(err)
		}
		for _, each := range rules {
			rule := each.(map[string]any)
			for _, resource := range rule["resources"].([]any) {
				for _, verb := range rule["verbs"].([]any) {
					if resource != "ipamconfigurations" { // the native group's name of ipamconfigs
						out[fmt.Sprintf("%s %s", verb, resource)] = true
					}
				}
			}
		}
	}
	return out
}
