package kubetest

import (
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var server Shared

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// TestServer: what the tests of other packages take for granted.
func TestServer(t *testing.T) {
	began := time.Now()
	s := server.Get(t)
	t.Logf("started, with definitions, in %s", time.Since(began).Round(time.Millisecond))
	pools := Native.Resource("ippools")
	_, err := s.Client(t, Nobody).Resource(pools).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("nobody lists pools: %v, want forbidden", err)
	}
	s.Grant(t, Daemon, `- {apiGroups: [projectcalico.org], resources: [ippools], verbs: [list]}`)
	Eventually(t, "the granted verb", func() error {
		_, err := s.Client(t, Daemon).Resource(pools).List(t.Context(), metav1.ListOptions{})
		return err
	})
	_, err = s.Client(t, Daemon).Resource(pools).Get(t.Context(), "x", metav1.GetOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a verb that was not granted: %v, want forbidden", err)
	}
	s.Clear(t, Classic, Native)
}

// TestNativeRules: the definitions refuse what Calico's refuse, and no more.
func TestNativeRules(t *testing.T) {
	s := server.Get(t)
	t.Cleanup(func() { s.Clear(t, Native) })
	for _, c := range []struct{ name, kind, spec, refusal string }{
		{"plain", "IPPool", "{cidr: 10.0.0.0/16, blockSize: 26, vxlanMode: Always}", ""},
		{"without a block size", "IPPool", "{cidr: 10.0.0.0/16}", ""},
		{"of another release", "IPPool", "{cidr: 10.0.0.0/16, newField: {a: 1}}", ""},
		{"IPv6", "IPPool", "{cidr: 'fd00::/64', blockSize: 122, vxlanMode: CrossSubnet}", ""},
		{"bits", "IPPool", "{cidr: 10.0.0.1/16}", "bits behind"},
		{"no cidr", "IPPool", "{cidr: nonsense}", "must be an address range"},
		{"both modes", "IPPool", "{cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet}", "cannot both be on"},
		{"IPv6 and IPIP", "IPPool", "{cidr: 'fd00::/64', ipipMode: Always}", "IPv4 only"},
		{"link-local", "IPPool", "{cidr: 169.254.1.0/24}", "link-local"},
		{"around link-local", "IPPool", "{cidr: 'fe00::/8'}", "link-local"},
		{"block size", "IPPool", "{cidr: 10.0.0.0/16, blockSize: 19}", "20 to 32"},
		{"IPv6 block size", "IPPool", "{cidr: 'fd00::/64', blockSize: 64}", "116 to 128"},
		{"too small", "IPPool", "{cidr: 10.0.0.0/28}", "must fit"},
		{"too small but disabled", "IPPool", "{cidr: 10.0.0.0/28, disabled: true}", ""},
		{"mixed uses", "IPPool", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Workload]}", "combined"},
		{"load balancer", "IPPool", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], nodeSelector: all()}", ""},
		{"unknown mode", "IPPool", "{cidr: 10.0.0.0/16, ipipMode: always}", "Unsupported value"},
		{"namespaces", "IPPool", "{cidr: 10.0.0.0/16, namespaceSelector: all()}", "namespaceSelector"},
		{"mesh password without mesh", "BGPConfiguration", "{nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}", "needs the mesh"},
		{"settings", "BGPConfiguration", "{asNumber: '1.10', listenPort: 179, nodeMeshMaxRestartTime: 2m}", ""},
		{"port", "BGPConfiguration", "{listenPort: 0}", "greater than or equal to 1"},
		{"peer", "BGPPeer", "{peerIP: 192.0.2.1, asNumber: 4200000000}", ""},
		{"two ways to name a peer", "BGPPeer", "{peerIP: 192.0.2.1, peerSelector: all()}", "exclude each other"},
		{"filter", "BGPFilter", "{exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, action: Reject}]}", ""},
		{"filter without operator", "BGPFilter", "{exportV4: [{cidr: 10.0.0.0/8, action: Reject}]}", "go together"},
		{"settings of IPAM", "IPAMConfiguration", "{strictAffinity: false, autoAllocateBlocks: false}", "allocated automatically"},
		{"claim", "BlockAffinity", "{state: confirmed, node: a, cidr: 10.0.0.0/26, deleted: false}", ""},
		{"claim in the classic form", "BlockAffinity", "{state: confirmed, node: a, cidr: 10.0.0.0/26, deleted: 'false'}", "Invalid value"},
	} {
		obj := Parse(t, []byte("{apiVersion: projectcalico.org/v3, kind: "+c.kind+", metadata: {generateName: a-}, spec: "+c.spec+"}"))[0]
		_, err := s.Client(t, Admin).Resource(Native.Resource(plural(c.kind))).Create(t.Context(), obj, metav1.CreateOptions{DryRun: []string{"All"}})
		switch {
		case c.refusal == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)):
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.refusal)
		}
	}
}

// TestProcessesEnd: what is killed is gone, and comes back with its data.
func TestProcessesEnd(t *testing.T) {
	s := Start(t)
	s.Apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept, namespace: default}}")
	there := func() error {
		_, err := s.Client(t, Admin).Resource(configMaps).Namespace("default").Get(t.Context(), "kept", metav1.GetOptions{})
		return err
	}
	s.KillAPIServer()
	if there() == nil {
		t.Error("an answer of a server that was killed")
	}
	s.StartAPIServer(t)
	s.KillEtcd()
	s.StartEtcd(t)
	Eventually(t, "the object, after etcd was killed", there)
	s.RestoreEtcd(t, "")
	if err := there(); !apierrors.IsNotFound(err) {
		t.Errorf("in an empty etcd: %v", err)
	}
}
