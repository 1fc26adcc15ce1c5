package deploy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/ipam"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/test/kubetest"
	"github.com/caracal-net/caracal/test/need"
)

// settingsOfBoth are FelixConfiguration and BGPConfiguration default.
func settingsOfBoth(felix, bgp string) string {
	return fmt.Sprintf(`
apiVersion: crd.projectcalico.org/v1
kind: FelixConfiguration
metadata: {name: default}
spec: {%s}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {%s}
`, felix, bgp)
}

const plainPool = `
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: plain}
spec: {cidr: 10.246.0.0/16, blockSize: 26, vxlanMode: Never, ipipMode: Never}
`

// TestBesideFelixInLab: the pods of the overlay beside-felix, and on each node a stand-in for Felix. Whatever the settings are, the two come to rest:
// each writes what is its own and then nothing more, however often Felix compares; where both would have one pool, ours says which setting to change.
func TestBesideFelixInLab(t *testing.T) {
	need.Root(t)
	t.Parallel()
	c := overlayCase{overlay: "beside-felix", spec: lab.Spec{Mode: lab.VXLANCrossSubnet, Backend: cluster.BackendVXLAN}, before: felixSettings}
	f := c.start(t, "bf")
	all := f.standIns(t)
	store, err := f.Store()
	if err != nil {
		t.Fatal(err)
	}
	f.server.Apply(t, plainPool)
	plain := netip.MustParsePrefix("10.246.2.0/26")
	claims := &ipam.Client{Store: store, Node: "node2", Log: slog.New(slog.DiscardHandler)}
	if got, _, err := claims.ClaimBlocks(t.Context(), plain); err != nil || len(got) != 1 {
		t.Fatalf("claim %s: %v, %v", plain, got, err)
	}
	near, far := f.Plan.Node("node2").Workloads[0].Addrs[0].String(), f.Plan.Node("node3").Workloads[0].Addrs[0].String()
	const off, on = "vxlanEnabled: false, programClusterRoutes: Disabled", "programClusterRoutes: Enabled"
	for _, step := range []struct {
		what       string
		felix, bgp string
		forced     bool // Felix's environment says VXLAN, whatever the resource does
		far        string
		plain      kernel.Protocol // of the route to the block without encapsulation
		problem    []string        // of node1, in one; none for no problem
		about      string          // the object that has the Event
	}{
		{"the profile", off, on, false, "vxlan.caracal", kernel.ProtoCaracal, nil, ""},
		{"Felix has VXLAN", "programClusterRoutes: Disabled", on, false, "vxlan.calico", kernel.ProtoCaracal, nil, ""},
		{"the profile again", off, on, false, "vxlan.caracal", kernel.ProtoCaracal, nil, ""},
		{"both at the VXLAN pool", off, on, true, "vxlan.caracal", kernel.ProtoCaracal, []string{"routes of Felix lead to blocks of pools that we program", "vxlanEnabled: false"}, "vxlan-ipv4"},
		{"both at the pool without encapsulation", "vxlanEnabled: false, programClusterRoutes: Enabled", on, false, "vxlan.caracal", kernel.ProtoFelix,
			[]string{"both Felix and BGP would program pools with no encapsulation", "programClusterRoutes"}, "default"},
		{"Felix has it alone", "vxlanEnabled: false, programClusterRoutes: EnabledNoEncapOnly", "programClusterRoutes: EnabledIPIPOnly", false, "vxlan.caracal", kernel.ProtoFelix, nil, ""},
		{"neither has it", off, "programClusterRoutes: Disabled", false, "vxlan.caracal", 0, []string{"neither Felix nor BGP programs pools with no encapsulation", "programClusterRoutes"}, "default"},
		{"the profile in the end", off, on, false, "vxlan.caracal", kernel.ProtoCaracal, nil, ""},
	} {
		f.server.Apply(t, settingsOfBoth(step.felix, step.bgp))
		for _, s := range all {
			if delete(s.env, felixVXLAN); step.forced {
				s.env[felixVXLAN] = true
			}
		}
		kubetest.Eventually(t, step.what, func() error {
			for _, s := range all {
				if err := s.resync(t.Context()); err != nil {
					return fmt.Errorf("Felix of %s: %w", s.node, err)
				}
			}
			if d := f.leaves(t, "node1", far); d != step.far {
				return fmt.Errorf("packets to another subnet leave by %s, want %s (%v)", d, step.far, all[0].failed)
			}
			if d := f.leaves(t, "node1", near); d != "eth0" {
				return fmt.Errorf("packets to a neighbour leave by %s", d)
			}
			if p := all[0].chosen(t, plain); p != step.plain {
				return fmt.Errorf("the route to %s is protocol %d's, want %d", plain, p, step.plain)
			}
			return f.tells(t, "node1", step.problem)
		})
		if len(step.problem) > 0 {
			f.toldOutside(t, "node1", step.about, step.problem)
		}
		f.restful(t, step.what, all)
	}
}

// chosen is the protocol of the route to a destination that the kernel takes, 0 for none.
func (f *standIn) chosen(t *testing.T, dst netip.Prefix) (protocol kernel.Protocol) {
	t.Helper()
	metric := ^uint32(0)
	if err := f.kernel.ListRoutes(t.Context(), false, func(r *kernel.Route) bool {
		if r.Dst == dst && r.Metric < metric {
			metric, protocol = r.Metric, r.Protocol
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return protocol
}

// tells reports a node whose status has no problem with all of these words; or, without any, one that speaks of Felix.
func (f *fleet) tells(t *testing.T, node string, words []string) error {
	t.Helper()
	st, err := f.Status(t.Context(), node)
	if err != nil {
		return err
	}
	var texts []string
	for _, p := range st.GetProblems() {
		text := p.GetObject() + " " + p.GetField() + ": " + p.GetText()
		texts = append(texts, text)
		if len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			return nil
		}
		if len(words) == 0 && strings.Contains(text, "Felix") {
			return fmt.Errorf("%s still says %q", node, text)
		}
	}
	if len(words) > 0 {
		return fmt.Errorf("%s says %q, want %q", node, texts, words)
	}
	return nil
}

// toldOutside waits for the same words in an Event on the object and in the daemon's log.
func (f *fleet) toldOutside(t *testing.T, node, about string, words []string) {
	t.Helper()
	has := func(text string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	}
	events := schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}
	kubetest.Eventually(t, "an Event on "+about, func() error {
		list, err := f.server.Client(t, kubetest.Admin).Resource(events).Namespace("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			regarding, _ := e.Object["regarding"].(map[string]any)
			if note, _ := e.Object["note"].(string); regarding["name"] == about && has(note) {
				return nil
			}
		}
		return fmt.Errorf("%d Events, none on %s with %q", len(list.Items), about, words)
	})
	kubetest.Eventually(t, "a line of log", func() error {
		text, err := os.ReadFile(f.LogPath(node))
		if err == nil && !has(string(text)) {
			err = fmt.Errorf("%q is not there", words)
		}
		return err
	})
}

// felixPasses is how often Felix compares while nothing may change.
const felixPasses = 10

// calmFor is how long no route changes on a node at rest; a change of settings is acted upon within some milliseconds.
const calmFor = 300 * time.Millisecond

// restful has each Felix compare again and again, while packets flow: none is lost, and no route of anybody changes on any node.
func (f *fleet) restful(t *testing.T, what string, all []*standIn) {
	t.Helper()
	if _, err := f.Converge(t.Context()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	probe, err := lab.StartProbe(lab.Pairs(f.Endpoints(nil)), lab.ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var watches []<-chan kernel.Event
	for _, s := range all {
		events, err := s.kernel.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, events)
		s.writes, s.deletes = 0, 0
	}
	for i, s := range all {
		s.rests(t, watches[i])
	}
	for range felixPasses {
		for _, s := range all {
			if err := s.resync(ctx); err != nil {
				t.Fatalf("%s: Felix of %s: %v", what, s.node, err)
			}
		}
	}
	for i, s := range all {
		if s.writes+s.deletes > 0 {
			t.Errorf("%s: Felix of %s wrote %d routes and deleted %d", what, s.node, s.writes, s.deletes)
		}
		if changes := s.changes(t, watches[i]); len(changes) > 0 {
			t.Errorf("%s: on %s routes changed: %v", what, s.node, changes)
		}
	}
	report := probe.Stop()
	t.Logf("%s: %d passes of Felix on each node, %s", what, felixPasses, report)
	if report.Lost() != 0 {
		t.Errorf("%s: %d packets were lost", what, report.Lost())
	}
}

// rests waits until the node has done what the settings ask for: the condition before looked at one node.
func (f *standIn) rests(t *testing.T, events <-chan kernel.Event) {
	t.Helper()
	end := time.After(20 * time.Second)
	for calm := time.After(calmFor); ; {
		select {
		case e := <-events:
			if e.Kind == kernel.EventRoute {
				calm = time.After(calmFor)
			}
		case <-calm:
			return
		case <-end:
			t.Fatalf("routes of %s do not come to rest", f.node)
		}
	}
}

// changes are the routes of which the kernel has told until now. A route of nobody's marks the end (RFC 7600's address).
func (f *standIn) changes(t *testing.T, events <-chan kernel.Event) (list []string) {
	t.Helper()
	mark := netip.MustParsePrefix("192.0.0.8/32")
	for _, verb := range []string{"add", "delete"} {
		if _, err := f.ns.Run("ip", "route", verb, "blackhole", mark.String()); err != nil {
			t.Fatal(err)
		}
	}
	for {
		select {
		case e := <-events:
			switch {
			case e.Kind == kernel.EventLost:
				t.Fatalf("events were lost: %v", e.Err)
			case e.Kind != kernel.EventRoute:
			case e.Route.Dst == mark && e.Deleted:
				return list
			case e.Route.Dst != mark:
				list = append(list, fmt.Sprintf("%s protocol %d, deleted %t", e.Route.Dst, e.Route.Protocol, e.Deleted))
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the kernel does not tell of the last route")
		}
	}
}
