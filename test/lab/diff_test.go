package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/caracal-net/caracal/internal/lab"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/kubetest"
)

// foretold is what `caracal bgp diff` says of the sessions and routes of one node.
type foretold struct {
	added, ended, reset []string // sessions, by the address of the other end; ended are those that are gone or may not start
	sent, received      string   // of each session what appears and vanishes, as text
}

// seen is what a node's sessions and routes are.
type seen struct {
	up             map[string]time.Time       // sessions that are up: since when
	sent, received map[string]map[string]bool // prefixes by session: of our own what is sent, and what is let in
}

// TestDiffIsWhatHappens: a table of changes is first asked about on every node and then applied to a cluster of daemons, and what their sessions and
// routes then do is what was said.
func TestDiffIsWhatHappens(t *testing.T) {
	t.Parallel()
	c := cluster(t, lab.Spec{Mode: lab.NoEncapsulation, Nodes: 3, Workloads: 1}, options(t))
	const head = "apiVersion: projectcalico.org/v3\nkind: "
	conf := func(spec, annotations string) string {
		return head + "BGPConfiguration\nmetadata: {name: default, annotations: {" + annotations + "}}\nspec: {" + spec + "}\n"
	}
	peer := func(spec string) string {
		return head + "BGPPeer\nmetadata: {name: pair}\nspec: {node: node1, peerSelector: name == 'node2'" + spec + "}\n"
	}
	secret := func(password string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: bgp, namespace: kube-system}\nstringData: {key: " + password + "}\n"
	}
	node2 := func(more string) string {
		n := c.Plan.Node("node2")
		return fmt.Sprintf(head+"Node\nmetadata: {name: node2, labels: {name: node2, rack: rack-a}}\nspec: {bgp: {ipv4Address: %s%s}}\n", n.Addr4, more)
	}
	const mesh = "nodeToNodeMeshEnabled: true"
	for _, step := range []struct {
		what      string
		files     map[string]string // applied, by name; "" removes
		deletions []string
	}{
		{what: "a label", files: map[string]string{"node-node2": node2("")}},
		{what: "BFD for the mesh", files: map[string]string{"conf": conf(mesh, "caracal.net/bfd: 'interval=300ms'")}},
		{what: "no BFD", files: map[string]string{"conf": conf(mesh, "")}},
		{what: "a bound of prefixes", files: map[string]string{"conf": conf(mesh, "caracal.net/max-prefixes: '1000'")}},
		{what: "two nodes have a BGPPeer in place of the mesh", files: map[string]string{"peer": peer("")}},
		{what: "its filter refuses what comes", files: map[string]string{"peer": peer(", filters: [f]"),
			"filter": head + "BGPFilter\nmetadata: {name: f}\nspec: {importV4: [{action: Reject, cidr: 10.246.0.0/16, matchOperator: In}]}\n"}},
		{what: "it refuses what goes", files: map[string]string{
			"filter": head + "BGPFilter\nmetadata: {name: f}\nspec: {exportV4: [{action: Reject, cidr: 10.246.0.0/16, matchOperator: In}]}\n"}},
		{what: "the filter goes", files: map[string]string{"filter": ""}, deletions: []string{"BGPFilter/f"}},
		{what: "a password without a Secret", files: map[string]string{"peer": peer(", password: {secretKeyRef: {name: bgp, key: key}}")}},
		{what: "the Secret comes", files: map[string]string{"secret": secret("one")}},
		{what: "another password", files: map[string]string{"secret": secret("two")}},
		{what: "the Secret goes", files: map[string]string{"secret": ""}, deletions: []string{"Secret/bgp"}},
		{what: "no BGPPeer", files: map[string]string{"peer": ""}, deletions: []string{"BGPPeer/pair"}},
		{what: "a pool is not announced", files: map[string]string{"ippool-plain-ipv4": head + "IPPool\nmetadata: {name: plain-ipv4}\nspec: {cidr: 10.246.0.0/16, ipipMode: Never, vxlanMode: Never, disableBGPExport: true}\n"}},
		{what: "it is again", files: map[string]string{"ippool-plain-ipv4": head + "IPPool\nmetadata: {name: plain-ipv4}\nspec: {cidr: 10.246.0.0/16, ipipMode: Never, vxlanMode: Never}\n"}},
		{what: "a reflector is elected", files: map[string]string{"conf": conf(mesh, "caracal.net/max-prefixes: '1000', caracal.net/route-reflectors: \"above=0,count=1,selector=has(name)\"")}},
		{what: "a node has another AS", files: map[string]string{"node-node2": node2(", asNumber: 64999")}},
		{what: "and its former one", files: map[string]string{"node-node2": node2("")}},
		{what: "nobody is elected", files: map[string]string{"conf": ""}, deletions: []string{"BGPConfiguration/default"}},
	} {
		ok := t.Run(step.what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			before, said := map[string]seen{}, map[string]foretold{}
			manifests := strings.Join(slices.Collect(maps.Values(step.files)), "---\n")
			for _, n := range c.Plan.Members() {
				before[n.Name] = look(t, ctx, c, n.Name)
				said[n.Name] = foretell(t, ctx, c, n.Name, manifests, step.deletions)
			}
			for name, text := range step.files {
				apply(t, c, name, text)
			}
			for _, n := range c.Plan.Members() {
				kubetest.Eventually(t, n.Name, func() error { return compare(before[n.Name], look(t, ctx, c, n.Name), said[n.Name]) })
			}
			settle := time.NewTimer(300 * time.Millisecond) // sessions that were not to begin anew have had time to do so
			<-settle.C
			for _, n := range c.Plan.Members() {
				kubetest.Eventually(t, n.Name, func() error { return compare(before[n.Name], look(t, ctx, c, n.Name), said[n.Name]) })
			}
		})
		if !ok {
			t.Fatal("what follows was not played")
		}
	}
}

func apply(t *testing.T, c *lab.Cluster, name, text string) {
	t.Helper()
	path := filepath.Join(c.DatastoreDir(), name+".yaml")
	if text == "" {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	tmp := filepath.Join(c.DatastoreDir(), "."+name+".new")
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, path)); err != nil {
		t.Fatal(err)
	}
}

// asking lends f a client of a node's daemon.
func asking(t *testing.T, c *lab.Cluster, node string, f func(caracalv1.InspectionClient) error) {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+c.Socket(node), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := f(caracalv1.NewInspectionClient(conn)); err != nil {
		t.Fatal(err)
	}
}

// foretell asks a node's daemon what a change would do.
func foretell(t *testing.T, ctx context.Context, c *lab.Cluster, node, manifests string, deletions []string) (f foretold) {
	t.Helper()
	asking(t, c, node, func(client caracalv1.InspectionClient) error {
		d, err := client.DiffBGP(ctx, &caracalv1.DiffBGPRequest{Manifests: manifests, Deletions: deletions})
		if err != nil {
			return err
		}
		for _, x := range d.GetAdded() {
			f.added = append(f.added, far(x))
		}
		for _, x := range d.GetRemoved() {
			f.ended = append(f.ended, far(x))
		}
		for _, x := range d.GetReset_() {
			f.reset = append(f.reset, far(x.GetPeer()))
		}
		for _, x := range d.GetDown() {
			f.ended = append(f.ended, far(x.GetPeer()))
		}
		for _, list := range [][]string{f.added, f.ended, f.reset} {
			slices.Sort(list)
		}
		f.sent, f.received = changes(d.GetPeers()), changes(d.GetReceived())
		if len(d.GetProblems()) > 0 {
			t.Logf("%s: %v", node, d.GetProblems())
		}
		return nil
	})
	return f
}

// far is the other end's address of a session's name. A session may get another name and be the same.
func far(name string) string {
	_, address, _ := strings.Cut(name, "_")
	return address
}

func changes(list []*caracalv1.PeerChange) string {
	var out []string
	for _, p := range list {
		for _, x := range p.GetAppear() {
			out = append(out, far(p.GetPeer())+" + "+x)
		}
		for _, x := range p.GetVanish() {
			out = append(out, far(p.GetPeer())+" - "+x)
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// look asks a node's daemon for its sessions and what goes over them.
func look(t *testing.T, ctx context.Context, c *lab.Cluster, node string) seen {
	t.Helper()
	s := seen{map[string]time.Time{}, map[string]map[string]bool{}, map[string]map[string]bool{}}
	peers, err := c.Peers(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	asking(t, c, node, func(client caracalv1.InspectionClient) error {
		for _, p := range peers {
			if p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED || strings.Contains(p.GetSource(), ", ") { // of those that are to end soon
				continue
			}
			s.up[far(p.GetName())] = p.GetSince().AsTime()
			for d, into := range map[caracalv1.ListPeerRoutesRequest_Direction]map[string]map[string]bool{
				caracalv1.ListPeerRoutesRequest_DIRECTION_RECEIVED: s.received, caracalv1.ListPeerRoutesRequest_DIRECTION_ADVERTISED: s.sent} {
				into[far(p.GetName())] = map[string]bool{}
				stream, err := client.ListPeerRoutes(ctx, &caracalv1.ListPeerRoutesRequest{Peer: p.GetAddress(), Direction: d})
				if err != nil {
					return err
				}
				for {
					m, err := stream.Recv()
					if err != nil {
						break
					}
					for _, r := range m.GetRoutes() {
						if own := d != caracalv1.ListPeerRoutesRequest_DIRECTION_ADVERTISED || r.GetBefore().GetLocal(); own && r.GetAfter() != nil {
							into[far(p.GetName())][r.GetBefore().GetPrefix()] = true
						}
					}
				}
			}
		}
		return nil
	})
	return s
}

// compare says where what happened is not what was said.
func compare(before, after seen, said foretold) error {
	var did foretold
	var sent, received []string
	for name, since := range after.up {
		was, had := before.up[name]
		switch {
		case !had:
			did.added = append(did.added, name)
		case !since.Equal(was):
			did.reset = append(did.reset, name)
		}
		sent = append(sent, differences(name, before.sent[name], after.sent[name])...)
		received = append(received, differences(name, before.received[name], after.received[name])...)
	}
	for name := range before.up {
		if _, still := after.up[name]; !still {
			did.ended = append(did.ended, name)
			sent = append(sent, differences(name, before.sent[name], nil)...)
		}
	}
	slices.Sort(did.added)
	slices.Sort(did.ended)
	slices.Sort(did.reset)
	slices.Sort(sent)
	did.sent = strings.Join(sent, "\n")
	var err error
	for what, pair := range map[string][2][]string{"sessions added": {did.added, said.added}, "sessions ended": {did.ended, said.ended}, "sessions reset": {did.reset, said.reset}} {
		if !slices.Equal(pair[0], pair[1]) {
			err = errors.Join(err, fmt.Errorf("%s: %v, said was %v", what, pair[0], pair[1]))
		}
	}
	for _, line := range strings.Split(withoutEnded(said.received, did.ended), "\n") {
		if line != "" && !slices.Contains(received, line) {
			err = errors.Join(err, fmt.Errorf("received: %v, said was %q", received, line))
		}
	}
	if a, b := withoutEnded(did.sent, did.ended), withoutEnded(said.sent, did.ended); a != b {
		err = errors.Join(err, fmt.Errorf("sent:\n%s\nsaid was:\n%s", a, b))
	}
	return err
}

// withoutEnded leaves out the lines of sessions that have ended: that nothing is sent over them goes without saying.
func withoutEnded(text string, ended []string) string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		if name, _, _ := strings.Cut(line, " "); !slices.Contains(ended, name) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func differences(name string, before, after map[string]bool) (out []string) {
	for p := range after {
		if !before[p] {
			out = append(out, name+" + "+p)
		}
	}
	for p := range before {
		if !after[p] {
			out = append(out, name+" - "+p)
		}
	}
	return out
}
