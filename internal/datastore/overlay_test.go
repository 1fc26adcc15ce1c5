package datastore

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
)

func overlaid() *cluster.State {
	conf := cluster.DefaultBGP()
	conf.ASN, conf.NodeListenPorts = 64600, map[string]uint16{"node-a": 1179, "node-b": 2179}
	return cluster.Build(cluster.Objects{
		Nodes: []*cluster.Node{{Name: "node-a", Addr4: netip.MustParsePrefix("192.0.2.1/24")}, {Name: "node-b", Addr4: netip.MustParsePrefix("192.0.2.2/24")}},
		Pools: []*cluster.Pool{{Name: "p", CIDR: netip.MustParsePrefix("10.1.0.0/16"), BlockSize: 26, Workload: true}},
		Peers: []*cluster.BGPPeer{{Name: "tor", PeerIP: netip.MustParseAddr("192.0.2.254"), ASN: 65000}},
		BGP:   conf, Backend: cluster.BackendBird,
	})
}

// TestOverlay: what is named changes, the rest stays, and the State that was given is left alone.
func TestOverlay(t *testing.T) {
	const head = "apiVersion: projectcalico.org/v3\nkind: "
	for name, c := range map[string]struct {
		manifests string
		deletions []string
		want      func(st *cluster.State) bool
		problems  int
		err       string
	}{
		"a peer changes": {head + "BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: 192.0.2.254, asNumber: 65001}\n", nil,
			func(st *cluster.State) bool { return len(st.BGPPeers()) == 1 && st.BGPPeers()[0].ASN == 65001 }, 0, ""},
		"two documents": {head + "BGPPeer\nmetadata: {name: second}\nspec: {peerIP: 192.0.2.253, asNumber: 65001}\n---\n" + head + "Node\nmetadata: {name: node-c}\n", nil,
			func(st *cluster.State) bool { return len(st.BGPPeers()) == 2 && len(st.Nodes()) == 3 }, 0, ""},
		"settings of all nodes": {head + "BGPConfiguration\nmetadata: {name: default}\nspec: {asNumber: 64700}\n", nil,
			func(st *cluster.State) bool {
				return st.BGP().ASN == 64700 && st.BGP().NodeListenPorts["node-a"] == 1179
			}, 0, ""},
		"settings of one": {head + "BGPConfiguration\nmetadata: {name: node.node-a}\nspec: {listenPort: 3179}\n", nil, func(st *cluster.State) bool {
			b := st.BGP()
			return b.ASN == 64600 && b.NodeListenPorts["node-a"] == 3179 && b.NodeListenPorts["node-b"] == 2179
		}, 0, ""},
		"a deletion": {"", []string{"BGPPeer/tor"}, func(st *cluster.State) bool { return len(st.BGPPeers()) == 0 && len(st.Nodes()) == 2 }, 0, ""},
		"a bad value": {head + "BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: here, asNumber: 1}\n", nil,
			func(st *cluster.State) bool { return st.BGPPeers()[0].ASN == 65000 }, 1, ""},
		"a workload": {"apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: vms}\nspec: {nodeName: node-a}\nstatus: {phase: Running, podIP: 10.1.0.2}\n", nil,
			func(st *cluster.State) bool { return len(st.Pods()) == 1 }, 0, ""},
		"a Secret comes and goes": {"apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: kube-system}\nstringData: {a: b}\n", []string{"Secret/s"}, nil, 0, "no such object"},
		"settings go": {"", []string{"BGPConfiguration/default", "BGPConfiguration/node.node-a"}, func(st *cluster.State) bool {
			b := st.BGP()
			return b.ASN == cluster.DefaultBGP().ASN && len(b.NodeListenPorts) == 1 && b.NodeListenPorts["node-b"] == 2179
		}, 0, ""},
		"settings of nobody": {"", []string{"BGPConfiguration/other"}, nil, 0, "no such object"},
		"a Kubernetes Node beside a peer": {head + "BGPPeer\nmetadata: {name: second}\nspec: {peerIP: 192.0.2.253, asNumber: 65001}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node-c}\n", nil,
			func(st *cluster.State) bool { return len(st.BGPPeers()) == 2 && len(st.Nodes()) == 2 }, 1, ""},
		"no resource":          {"apiVersion: v1\nkind: Node\nmetadata: {name: p}\n", nil, nil, 0, "hold no resource"},
		"no YAML":              {"{", nil, nil, 0, "manifests:"},
		"a deletion of none":   {"", []string{"BGPPeer/other"}, nil, 0, "no such object"},
		"a deletion of what":   {"", []string{"Lease/x"}, nil, 0, "write Node, IPPool"},
		"a deletion of a name": {"", []string{"tor"}, nil, 0, "write Node, IPPool"},
	} {
		st := overlaid()
		got, problems, err := Overlay(st, c.manifests, c.deletions)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
			continue
		}
		if err == nil && (!c.want(got) || len(problems) != c.problems || len(got.Pools()) != 1 || got.Backend() != cluster.BackendBird) {
			t.Errorf("%s: %+v, problems %v", name, got.Objects(), problems)
		}
		if ports := st.BGP().NodeListenPorts; ports["node-a"] != 1179 || len(ports) != 2 || len(st.BGPPeers()) != 1 || st.BGPPeers()[0].ASN != 65000 {
			t.Errorf("%s: the State that was given has changed", name)
		}
	}
}
