package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/test/kubetest"
)

// slip is an object that an API server without rules takes, and that nobody meant so.
type slip struct {
	name  string
	spec  string // of an object of the kind below: an IPPool if it is empty
	kind  string
	named string // "" = a name of its own
	meta  string // more of its metadata
	// object and field say which problem is told, "" for none; says is a part of what it says.
	field, says string
	// block is another node's in the range, owned by owner, and way what a route to it has in the kernel; "" = there is none.
	block, owner, way string
}

// slips are what a definition with rules would have refused, and a few things that none refuses. What they become follows from
// Calico's programs where these take such an object.
func slips() []slip {
	const tunnel, direct = "dev vxlan.calico", "via 2001:db8:a::c dev eth0"
	return []slip{
		{name: "both modes", spec: "{cidr: 10.90.0.0/16, blockSize: 26, ipipMode: Always, vxlanMode: Always}",
			field: "spec.vxlanMode", says: "one encapsulation", block: "10.90.0.0/26", owner: "node3", way: tunnel},
		{name: "IPv6 over IPIP", spec: "{cidr: 'fd00:90::/112', blockSize: 122, ipipMode: Always}",
			field: "spec.ipipMode", says: "IPv4 only", block: "fd00:90::/122", owner: "node2", way: direct},
		{name: "overlaps", spec: "{cidr: 10.244.128.0/17, blockSize: 26}",
			field: "spec.cidr", says: "overlaps IPPool vxlan-ipv4", block: "10.244.200.0/26", owner: "node3", way: tunnel},
		{name: "is around others", spec: "{cidr: 10.0.0.0/8, blockSize: 26, vxlanMode: Always}", field: "spec.cidr", says: "overlaps IPPool"},
		{name: "says little", spec: "{cidr: 10.91.0.0/16, vxlanMode: Always}", block: "10.91.0.0/26", owner: "node3", way: tunnel},
		{name: "selects badly", spec: "{cidr: 10.92.0.0/16, vxlanMode: Always, nodeSelector: rack = 'r1'}",
			field: "spec.nodeSelector", says: "expected ==", block: "10.92.0.0/26", owner: "node3", way: tunnel},
		{name: "selects everything", spec: "{cidr: 10.93.0.0/16, vxlanMode: Always, nodeSelector: global()}", field: "spec.nodeSelector", says: "all()"},
		{name: "is small", spec: "{cidr: 10.94.0.0/28, vxlanMode: Always}", field: "spec.blockSize", says: "does not fit"},
		{name: "has odd blocks", spec: "{cidr: 10.95.0.0/16, blockSize: 19, vxlanMode: Always}",
			field: "spec.blockSize", says: "20 to 32", block: "10.95.0.0/26", owner: "node3", way: tunnel},
		{name: "has bits behind", spec: "{cidr: 10.96.0.5/16, vxlanMode: Always}", field: "spec.cidr", says: "write 10.96.0.0/16", block: "10.96.0.0/26", owner: "node3"},
		{name: "has no range", spec: "{cidr: ten, vxlanMode: Always}", field: "spec.cidr", says: "is not a CIDR"},
		{name: "is link-local", spec: "{cidr: 169.254.0.0/16, vxlanMode: Always}", field: "spec.cidr", says: "link-local"},
		{name: "is in small letters", spec: "{cidr: 10.97.0.0/16, vxlanMode: always}", field: "spec.vxlanMode", says: "write Never, Always or CrossSubnet"},
		{name: "mixes uses", spec: "{cidr: 10.98.0.0/16, allowedUses: [LoadBalancer, Workload]}", field: "spec.allowedUses", says: "make two pools"},
		// One that is in use: what it was stays in force.
		{name: "the cluster's own pool", named: "vxlan-ipv4", spec: "{cidr: 10.244.0.0/16, vxlanMode: CrossSubnet, ipipMode: Always, nodeSelector: '(('}",
			field: "spec.nodeSelector", says: "a selector reads as in"},
		{name: "the backend", kind: "ConfigMap", named: "calico-config", field: "data.calico_backend", says: "is not a backend"},
		{name: "the VNI", kind: "FelixConfiguration", named: "default", spec: "{vxlanVNI: 99999999, vxlanPort: 0}", field: "spec.vxlanVNI", says: "out of range"},

		{name: "names nobody", kind: "BGPPeer", spec: "{asNumber: 65000}", field: "spec.peerIP", says: "peer"},
		{name: "names two", kind: "BGPPeer", spec: "{peerIP: 192.0.2.99, asNumber: 65000, peerSelector: all()}", field: "spec.peerSelector", says: "combined"},
		{name: "filters nothing", kind: "BGPFilter", spec: "{exportV4: [{cidr: 10.0.0.0/8, action: Accept}]}", field: "spec.exportV4[0].matchOperator", says: "is missing"},
		{name: "has no AS", kind: "BGPConfiguration", named: "node.node1", spec: "{asNumber: x.y}", field: "spec.asNumber", says: "x.y"},
		{name: "is nowhere", kind: "Node", meta: ", annotations: {projectcalico.org/IPv4Address: 192.0.2.300/24}",
			field: "metadata.annotations[projectcalico.org/IPv4Address]", says: "is not an address"},
		{name: "is in no state", kind: "BlockAffinity", named: "node3-10-244-201-0-26", spec: "{cidr: 10.244.201.0/26, node: node3, state: perhaps, deleted: 'false'}", field: "spec.state", says: "confirmed, pending"},
		{name: "is short", kind: "IPAMBlock", named: "10-244-202-0-26", spec: "{cidr: 10.244.202.0/26, affinity: 'host:node3', allocations: [null], unallocated: [], attributes: [], strictAffinity: false}",
			field: "spec.allocations", says: "10.244.202.0/26 has"},
		{name: "has another's name", kind: "IPAMBlock", named: "10-244-203-0-26", spec: "{cidr: 10.244.204.0/26, affinity: 'host:node3', allocations: [], unallocated: [], attributes: [], strictAffinity: false}",
			field: "metadata.name", says: "must be named 10-244-204-0-26"},
	}
}

func (s *slip) kindName() string {
	if s.kind == "" {
		return "IPPool"
	}
	return s.kind
}

func (s *slip) object() string {
	if s.named != "" {
		return s.named
	}
	return strings.ToLower(strings.ReplaceAll(s.name, " ", "-"))
}

// manifest returns the object with its block.
func (s *slip) manifest() string {
	version, more := "crd.projectcalico.org/v1", "spec: "+s.spec
	switch s.kindName() {
	case "Node":
		version, more = "v1", ""
	case "ConfigMap":
		version, more = "v1", "data: {calico_backend: quagga}"
		s.meta = ", namespace: kube-system"
	}
	text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s%s}\n%s\n", version, s.kindName(), s.object(), s.meta, more)
	if s.block != "" {
		text += "---\n" + blockOf(s.block, s.owner)
	}
	return text
}

// blockOf writes a node's empty block.
func blockOf(cidr, owner string) string {
	p := netip.MustParsePrefix(cidr)
	free := make([]string, 1<<(p.Addr().BitLen()-p.Bits()))
	for i := range free {
		free[i] = fmt.Sprint(i)
	}
	return fmt.Sprintf("apiVersion: crd.projectcalico.org/v1\nkind: IPAMBlock\nmetadata: {name: %s}\nspec: {cidr: '%s', affinity: 'host:%s', allocations: [%s], unallocated: [%s], attributes: [], strictAffinity: false}\n",
		calico.BlockName(p), cidr, owner, strings.TrimSuffix(strings.Repeat("null,", len(free)), ","), strings.Join(free, ","))
}

// tolerated puts all of it into the cluster at once: each is told in the status of every node and by one Event on the object, each is taken as
// Calico's programs take it, and nothing else notices.
func tolerated(t *testing.T, c *onServer) {
	before := map[string]string{}
	for _, m := range c.Plan.Members() {
		before[m.Name] = c.vxlans(t, m.Name)
	}
	probe, err := lab.StartProbe(lab.Pairs(c.Endpoints(nil)), lab.ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := slips()
	for i := range all {
		c.server.Apply(t, all[i].manifest())
	}
	c.label(t, "node2", "zone", "y") // what asks for tunnel addresses once more
	for i := range all {
		s := &all[i]
		for _, m := range c.Plan.Members() {
			kubetest.Eventually(t, m.Name+" tells of what "+s.name, func() error { return c.tells(t, m.Name, s) })
		}
		if s.block != "" {
			kubetest.Eventually(t, s.name+": the way to its block", func() error { return c.routed(t, s) })
		}
	}
	for i := range all {
		kubetest.Eventually(t, "an Event on what "+all[i].name, func() error { return c.reported(t, &all[i]) })
	}
	for name, was := range before {
		if now := c.vxlans(t, name); now != was {
			t.Errorf("the device of %s was\n%s\nand is\n%s", name, was, now)
		}
	}
	for i := range all {
		if s := &all[i]; s.object() != "vxlan-ipv4" && s.kindName() != "ConfigMap" {
			c.server.Delete(t, s.manifest())
		}
	}
	c.server.Apply(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: calico-config, namespace: kube-system}\ndata: {calico_backend: vxlan}\n")
	c.server.Apply(t, "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {name: vxlan-ipv4}\nspec: {cidr: 10.244.0.0/16, vxlanMode: CrossSubnet, ipipMode: Never, nodeSelector: all()}\n")
	c.label(t, "node2", "zone", "")
	for _, m := range c.Plan.Members() {
		kubetest.Eventually(t, m.Name+" has nothing to tell of", func() error {
			st, err := c.Status(t.Context(), m.Name)
			if err == nil && len(st.GetProblems()) > 0 {
				err = fmt.Errorf("%v", st.GetProblems())
			}
			return err
		})
	}
	if _, err := c.Converge(t.Context()); err != nil {
		t.Error(err)
	}
	if report := probe.Stop(); report.Lost() != 0 {
		t.Errorf("%d packets lost: %s", report.Lost(), report)
	} else {
		t.Log(report)
	}
}

// vxlans returns a node's VXLAN devices as ip shows them.
func (c *onServer) vxlans(t *testing.T, node string) string {
	t.Helper()
	return c.ip(t, node, "-d", "addr", "show", "type", "vxlan")
}

func (c *onServer) ip(t *testing.T, node string, args ...string) string {
	t.Helper()
	ns, err := c.NS(node)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ns.Run("ip", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tells looks for a slip in a node's status, or for none where there is nothing wrong.
func (c *onServer) tells(t *testing.T, node string, s *slip) error {
	st, err := c.Status(t.Context(), node)
	if err != nil {
		return err
	}
	var fields []string
	for _, p := range st.GetProblems() {
		if p.GetObject() != s.kindName()+" "+s.object() {
			continue
		}
		if p.GetField() == s.field && strings.Contains(p.GetText(), s.says) {
			return nil
		}
		fields = append(fields, p.GetField()+" "+p.GetText())
	}
	if s.field == "" && len(fields) == 0 {
		return nil
	}
	return fmt.Errorf("it tells of %s %s: %q, want %s with %q", s.kindName(), s.object(), fields, s.field, s.says)
}

// routed looks in the first node's kernel for the route to a slip's block.
func (c *onServer) routed(t *testing.T, s *slip) error {
	family := "-4"
	if strings.Contains(s.block, ":") {
		family = "-6"
	}
	out := c.ip(t, "node1", family, "route", "show", s.block, "proto", "202")
	if s.way == "" && out != "" || !strings.Contains(out, s.way) {
		return fmt.Errorf("the route is %q, want one with %q", out, s.way)
	}
	return nil
}

// reported looks for the Events on a slip's object, as kubectl describe does: one, or none where nothing is wrong.
func (c *onServer) reported(t *testing.T, s *slip) error {
	events := schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}
	list, err := c.server.Client(t, kubetest.Admin).Resource(events).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	var notes []string
	for _, e := range list.Items {
		about, _, _ := unstructured.NestedStringMap(e.Object, "regarding")
		if about["kind"] == s.kindName() && about["name"] == s.object() {
			notes = append(notes, fmt.Sprint(e.Object["note"]))
		}
	}
	told := slices.ContainsFunc(notes, func(n string) bool { return strings.HasPrefix(n, s.field) && strings.Contains(n, s.says) })
	if s.field == "" && len(notes) > 0 || s.field != "" && !told {
		return fmt.Errorf("%q, want one with %s %q", notes, s.field, s.says)
	}
	return nil
}
