package calico

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// head is the part that is the same in most of the cases; the body begins on line 5.
const head = "apiVersion: projectcalico.org/v3\nkind: %s\nmetadata:\n  name: %s\n%s"

func pool(spec string) string { return fmt.Sprintf(head, "IPPool", "p", "spec:\n"+indent(spec)) }
func peer(spec string) string { return fmt.Sprintf(head, "BGPPeer", "p", "spec:\n"+indent(spec)) }
func node(spec string) string { return fmt.Sprintf(head, "Node", "n", "spec:\n"+indent(spec)) }

func config(spec string) string {
	return fmt.Sprintf(head, "BGPConfiguration", "default", "spec:\n"+indent(spec))
}

func filter(rule string) string {
	return fmt.Sprintf(head, "BGPFilter", "f", "spec:\n  exportV4:\n    - {"+rule+"}\n")
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") + "\n" }

// Each text is what a user reads, so it is pinned whole: object, field, line, what is wrong and how to mend it.
func TestProblems(t *testing.T) {
	for _, test := range []struct{ name, doc, want string }{
		{"not a resource", "- a\n- b", `1 document : is not a resource: write apiVersion, kind, metadata and spec, or move the file elsewhere`},
		{"no kind at all", "cidr: 10.0.0.0/8", `1 document kind: is missing: write apiVersion: projectcalico.org/v3 and the kind of the resource`},
		{"no kind", "apiVersion: projectcalico.org/v3\nspec: {}", `1 document kind: is missing: write the kind of the resource, as in kind: IPPool`},
		{"kind misspelled", fmt.Sprintf(head, "IPpool", "p", ""), `1 IPpool p kind: is spelled IPpool: write IPPool`},
		{"no version", "kind: IPPool\nmetadata: {name: p}", `1 IPPool p apiVersion: is missing: write projectcalico.org/v3`},
		{"wrong version", "apiVersion: projectcalico.org/v4\nkind: IPPool\nmetadata: {name: p}", `1 IPPool p apiVersion: projectcalico.org/v4 is not known: write projectcalico.org/v3`},
		{"no name", "apiVersion: projectcalico.org/v3\nkind: IPPool\nspec: {cidr: 10.0.0.0/8}", `1 IPPool metadata.name: is missing: write a name`},
		{"name is a number", fmt.Sprintf(head, "Node", "7", ""), `4 Node 7 metadata.name: must be a string: write it in quotes, as in "7"`},

		{"no cidr", pool("natOutgoing: true"), `5 IPPool p spec.cidr: is missing: write an address range, as in 10.244.0.0/16`},
		{"bad cidr", pool("natOutgoing: true\ncidr: ten"), `7 IPPool p spec.cidr: "ten" is not a CIDR: write an address and a prefix length, as in 10.244.0.0/16`},
		{"mapped cidr", pool("cidr: ::ffff:10.0.0.0/104"), `6 IPPool p spec.cidr: "::ffff:10.0.0.0/104" is not a CIDR: write an address and a prefix length, as in 10.244.0.0/16`},
		{"unmasked", pool("cidr: 10.0.0.5/16"), `6 IPPool p spec.cidr: 10.0.0.5/16 has bits set behind its prefix length: write 10.0.0.0/16`},
		{"link-local", pool("cidr: 169.254.1.0/24"), `6 IPPool p spec.cidr: 169.254.1.0/24 overlaps the link-local range 169.254.0.0/16, which is never routed: choose another range`},
		{"link-local v6", pool("cidr: fe80::/64"), `6 IPPool p spec.cidr: fe80::/64 overlaps the link-local range fe80::/10, which is never routed: choose another range`},
		{"mode", pool("cidr: 10.0.0.0/16\nipipMode: cross-subnet"), `7 IPPool p spec.ipipMode: "cross-subnet" is not known: write Never, Always or CrossSubnet`},
		{"both modes", pool("cidr: 10.0.0.0/16\nipipMode: Always\nvxlanMode: CrossSubnet"), `8 IPPool p spec.vxlanMode: ipipMode is Always and vxlanMode is CrossSubnet, but a pool has one encapsulation: set one of them to Never`},
		{"IPIP on IPv6", pool("cidr: fd00::/64\nipipMode: Always"), `7 IPPool p spec.ipipMode: IPIP carries IPv4 only, fd00::/64 is IPv6: set ipipMode to Never and use vxlanMode`},
		{"block size", pool("cidr: 10.0.0.0/16\nblockSize: 19"), `7 IPPool p spec.blockSize: 19 is out of range: write a number from 20 to 32, or leave the field out`},
		{"block size v6", pool("cidr: fd00::/64\nblockSize: 26"), `7 IPPool p spec.blockSize: 26 is out of range: write a number from 116 to 128, or leave the field out`},
		{"pool too small", pool("cidr: 10.0.0.0/28"), `5 IPPool p spec.blockSize: a block of /26 does not fit into 10.0.0.0/28: write a number from 28 to 32, or make the pool larger`},
		{"disabled pools may be small", pool("cidr: 10.0.0.0/28\ndisabled: true"), ``},
		{"selector", pool("cidr: 10.0.0.0/16\nnodeSelector: rack = 'r1'"), `7 IPPool p spec.nodeSelector: selector "rack = 'r1'", at character 6: expected ==, !=, in, not in, contains, starts with or ends with behind the label rack; a selector reads as in: rack == 'r1' && !has(edge)`},
		{"global", pool("cidr: 10.0.0.0/16\nnodeSelector: global()"), `7 IPPool p spec.nodeSelector: global() has no meaning for nodes: write all()`},
		{"use", pool("cidr: 10.0.0.0/16\nallowedUses: [Pod]"), `7 IPPool p spec.allowedUses: "Pod" is not known: write Workload, Tunnel or LoadBalancer`},
		{"balancer and workload", pool("cidr: 10.0.0.0/16\nallowedUses: [Workload, LoadBalancer]"), `7 IPPool p spec.allowedUses: LoadBalancer cannot be combined with Workload or Tunnel: make two pools`},
		{"balancer in a tunnel", pool("cidr: 10.0.0.0/16\nvxlanMode: Always\nallowedUses: [LoadBalancer]"), `8 IPPool p spec.allowedUses: a pool for LoadBalancer has no encapsulation: set ipipMode and vxlanMode to Never`},
		{"balancer at home", pool("cidr: 10.0.0.0/16\ndisableBGPExport: true\nallowedUses: [LoadBalancer]"), `8 IPPool p spec.allowedUses: a pool for LoadBalancer must be announced: set disableBGPExport to false`},
		{"balancer on some nodes", pool("cidr: 10.0.0.0/16\nnodeSelector: has(x)\nallowedUses: [LoadBalancer]"), `8 IPPool p spec.allowedUses: a pool for LoadBalancer serves every node: set nodeSelector to all()`},
		{"assignment", pool("cidr: 10.0.0.0/16\nassignmentMode: manual"), `7 IPPool p spec.assignmentMode: "manual" is not known: write Automatic or Manual`},
		{"wrong types", pool("cidr: [10.0.0.0/16]\nnatOutgoing: 'true'\nblockSize: '26'\nallowedUses: Workload\nipipMode: 5"), `6 IPPool p spec.cidr: must be a single value, not a list
7 IPPool p spec.natOutgoing: "true" is not a boolean: write true or false
8 IPPool p spec.blockSize: "26" is not a whole number: write digits without quotes
9 IPPool p spec.allowedUses: must be a list, not "Workload"
10 IPPool p spec.ipipMode: must be a string: write it in quotes, as in "5"`},
		{"twice", pool("cidr: 10.0.0.0/16\ncidr: 10.1.0.0/16"), `7 IPPool p spec.cidr: is written twice: leave one of them out`},
		{"spec is a list", fmt.Sprintf(head, "IPPool", "p", "spec: [cidr]"), `5 IPPool p spec: must hold fields (name: value), not a list`},
		{"merge key", "x: &x {cidr: 10.0.0.0/16}\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec:\n  <<: *x\n  cidr: 10.1.0.0/16", `6 IPPool p spec.<<: merge keys are not supported: write the fields out`},
		{"aliases are fine", "x: &x 10.0.0.0/16\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec:\n  cidr: *x", ``},

		{"address", node("bgp:\n  ipv4Address: 192.0.2.300/24"), `7 Node n spec.bgp.ipv4Address: "192.0.2.300/24" is not an address: write an IPv4 address with the prefix length of its subnet, as in 192.0.2.7/24`},
		{"address of the other family", node("bgp:\n  ipv4Address: 2001:db8::1/64"), `7 Node n spec.bgp.ipv4Address: 2001:db8::1/64 is not an IPv4 address: write one as in 192.0.2.7`},
		{"address of no host", node("bgp:\n  ipv6Address: ff02::1/64"), `7 Node n spec.bgp.ipv6Address: ff02::1/64 cannot be the address of a host: write a unicast address, as in 2001:db8::7`},
		{"tunnel address with a mask", node("ipv4VXLANTunnelAddr: 10.0.0.1/32"), `6 Node n spec.ipv4VXLANTunnelAddr: "10.0.0.1/32" is not an address: write an IPv4 address without a prefix length, as in 192.0.2.7`},
		{"MAC", node("vxlanTunnelMACAddr: 66:00:00:00:00"), `6 Node n spec.vxlanTunnelMACAddr: "66:00:00:00:00" is not a MAC address: write six pairs of hex digits, as in 66:f9:37:c3:7e:94`},
		{"MAC of a group", node("vxlanTunnelMACAddrV6: 01:00:5e:00:00:01"), `6 Node n spec.vxlanTunnelMACAddrV6: 01:00:5e:00:00:01 cannot be the address of a device: write a unicast MAC address, as in 66:f9:37:c3:7e:94, or leave the field out`},
		{"AS number", node("bgp:\n  asNumber: 4294967296"), `7 Node n spec.bgp.asNumber: "4294967296" is not an AS number: write a number from 0 to 4294967295, or two from 0 to 65535 as in "1.10"`},
		{"dotted AS number", node("bgp:\n  asNumber: '1.65536'"), `7 Node n spec.bgp.asNumber: "1.65536" is not an AS number: in the dotted form write two numbers from 0 to 65535, as in "1.10"`},
		{"cluster ID", node("bgp:\n  routeReflectorClusterID: seven"), `7 Node n spec.bgp.routeReflectorClusterID: "seven" is not a cluster ID: write it as an IPv4 address, as in 192.0.2.1`},
		{"labels", fmt.Sprintf(head, "Node", "n", "  labels:\n    rack: 1\n"), `6 Node n metadata.labels.rack: must be a string: write it in quotes, as in "1"`},

		{"peer without an address", peer("asNumber: 1"), `5 BGPPeer p spec.peerIP: is missing: write the address of the peer, or peerSelector for nodes of this cluster`},
		{"peer without an AS", peer("peerIP: 192.0.2.1"), `5 BGPPeer p spec.asNumber: is missing: write the AS number of 192.0.2.1`},
		{"peer address", peer("asNumber: 1\npeerIP: router"), `7 BGPPeer p spec.peerIP: "router" is not a peer: write an address, as in 192.0.2.7, or with a port, as in 192.0.2.7:1179 or [2001:db8::7]:1179`},
		{"peer port", peer("asNumber: 1\npeerIP: 192.0.2.1:0"), `7 BGPPeer p spec.peerIP: "192.0.2.1:0" has no port behind the colon: write a number from 1 to 65535, as in 192.0.2.7:1179 or [2001:db8::7]:1179`},
		{"both remotes", peer("peerIP: 192.0.2.1\npeerSelector: all()"), `7 BGPPeer p spec.peerSelector: cannot be combined with peerIP: leave one of them out`},
		{"AS of selected nodes", peer("peerSelector: all()\nasNumber: 1"), `7 BGPPeer p spec.asNumber: cannot be combined with peerSelector, the selected nodes have their own: leave it out`},
		{"node and selector", peer("peerSelector: all()\nnode: a\nnodeSelector: all()"), `8 BGPPeer p spec.nodeSelector: cannot be combined with node: leave one of them out`},
		{"next hop twice", peer("peerSelector: all()\nnextHopMode: Keep\nkeepOriginalNextHop: true"), `7 BGPPeer p spec.nextHopMode: cannot be combined with keepOriginalNextHop: leave keepOriginalNextHop out`},
		{"TTL", peer("peerSelector: all()\nttlSecurity: 256"), `7 BGPPeer p spec.ttlSecurity: 256 is out of range: write a number from 0 to 255, or leave the field out`},
		{"duration", peer("peerSelector: all()\nmaxRestartTime: 120"), `7 BGPPeer p spec.maxRestartTime: "120" is not a duration: write a number with its unit, as in 120s or 2m`},
		{"long duration", peer("peerSelector: all()\nmaxRestartTime: 2h"), `7 BGPPeer p spec.maxRestartTime: 2h0m0s is out of range: write a duration from 0s to 4095s`},
		{"password", peer("peerIP: 192.0.2.1\nasNumber: 1\npassword:\n  secretKeyRef: {name: s, key: k}"), ``},
		{"password without a key", peer("peerIP: 192.0.2.1\nasNumber: 1\npassword:\n  secretKeyRef: {name: s}"), `8 BGPPeer p spec.password: names no secret: write secretKeyRef with the name of a Secret and a key in it`},
		{"password in plain sight", peer("peerIP: 192.0.2.1\nasNumber: 1\npassword: hunter2"), `8 BGPPeer p spec.password: names no secret: write secretKeyRef with the name of a Secret and a key in it`},
		{"local workloads", peer("asNumber: 1\nlocalWorkloadSelector: all()"), ``},
		{"local workloads without an AS", peer("localWorkloadSelector: all()"), `5 BGPPeer p spec.asNumber: is missing: write the AS number of the workloads`},
		{"local workloads and an address", peer("asNumber: 1\nlocalWorkloadSelector: all()\npeerIP: 192.0.2.1"), `7 BGPPeer p spec.localWorkloadSelector: cannot be combined with peerIP or peerSelector: leave it out, or both of them`},
		{"local workloads and nodes", peer("asNumber: 1\nlocalWorkloadSelector: all()\npeerSelector: all()"), `7 BGPPeer p spec.localWorkloadSelector: cannot be combined with peerIP or peerSelector: leave it out, or both of them`},
		{"local workloads that cannot be chosen", peer("asNumber: 1\nlocalWorkloadSelector: color =="), `7 BGPPeer p spec.localWorkloadSelector: selector "color ==", at the end: expected a value in quotes; a selector reads as in: rack == 'r1' && !has(edge)`},
		{"keepalive", peer("peerSelector: all()\nkeepaliveTime: 100ms"), `7 BGPPeer p spec.keepaliveTime: 100ms is out of range: write a duration from 1s to 21845s`},
		{"allowed own AS", peer("peerSelector: all()\nnumAllowedLocalASNumbers: 300"), `7 BGPPeer p spec.numAllowedLocalASNumbers: 300 is out of range: write a number from 0 to 255, or leave the field out`},
		{"gateway without a peer", peer("peerSelector: all()\nreachableBy: 192.0.2.9"), `7 BGPPeer p spec.reachableBy: needs peerIP: write the one address that the gateway leads to, or leave it out`},
		{"gateway of another family", peer("peerIP: 192.0.2.1\nasNumber: 1\nreachableBy: 2001:db8::1"), `8 BGPPeer p spec.reachableBy: 2001:db8::1 is not an IPv4 address: write one as in 192.0.2.7`},
		{"reverse", peer("peerSelector: all()\nreversePeering: Never"), `7 BGPPeer p spec.reversePeering: "Never" is not known: write Auto or Manual`},
		{"mode and keep", peer("peerSelector: all()\nnextHopMode: Other"), `7 BGPPeer p spec.nextHopMode: "Other" is not known: write Auto, Self or Keep`},
		{"BFD", fmt.Sprintf(head, "BGPPeer", "p", "  annotations:\n    caracal.net/bfd: interval=50ms, multiplier=0\nspec: {peerSelector: all()}"),
			`5 BGPPeer p metadata.annotations[caracal.net/bfd]: "multiplier=0" is not known: write on, off, or settings as in interval=50ms,multiplier=3,hops=single, with an interval from 10ms to 1m0s, a multiplier from 1 to 255, and hops single, multihop or auto`},
		{"bound of prefixes", fmt.Sprintf(head, "BGPPeer", "p", "  annotations: {caracal.net/max-prefixes: '0'}\nspec: {peerSelector: all()}"),
			`5 BGPPeer p metadata.annotations[caracal.net/max-prefixes]: "0" is not a number of prefixes: write one from 1 to 2147483647, or leave it out for no bound`},
		{"empty filter", peer("peerSelector: all()\nfilters: [a, '']"), `7 BGPPeer p spec.filters[1]: is empty: write the name of a BGPFilter`},

		{"mesh password without a mesh", config("nodeToNodeMeshEnabled: false\nnodeMeshPassword: {secretKeyRef: {name: s, key: k}}\nnodeMeshMaxRestartTime: 2m"),
			"7 BGPConfiguration default spec.nodeMeshPassword: cannot be combined with nodeToNodeMeshEnabled: false, there is no mesh to protect: leave it out\n" +
				"8 BGPConfiguration default spec.nodeMeshMaxRestartTime: cannot be combined with nodeToNodeMeshEnabled: false: leave it out"},
		{"mesh password", config("nodeMeshPassword: {}"), `6 BGPConfiguration default spec.nodeMeshPassword: names no secret: write secretKeyRef with the name of a Secret and a key in it`},
		{"communities for nothing", config("communities: [{name: a, value: '1:2'}]"), `6 BGPConfiguration default spec.communities: names communities that nothing uses: write prefixAdvertisements, or leave them out`},
		{"community", config("prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['1:65536']}]"), `6 BGPConfiguration default spec.prefixAdvertisements[0].communities[0]: "1:65536" is neither a name that communities defines nor a value: write a defined name, 65000:100 or 65000:1:2`},
		{"named community", config("prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [a]}]\ncommunities: [{name: a, value: x}]"),
			"7 BGPConfiguration default spec.communities[0].value: \"x\" is not a community: write two numbers up to 65535, as in 65000:100, or three up to 4294967295, as in 65000:1:2\n" +
				"6 BGPConfiguration default spec.prefixAdvertisements[0].communities[0]: \"a\" is neither a name that communities defines nor a value: write a defined name, 65000:100 or 65000:1:2"},
		{"advertised range", config("prefixAdvertisements: [{cidr: 10.0.0.1/8, communities: ['1:2']}]"), `6 BGPConfiguration default spec.prefixAdvertisements[0].cidr: 10.0.0.1/8 has bits set behind its prefix length: write 10.0.0.0/8`},
		{"ignored interfaces", config("ignoredInterfaces: [eth*, '*', 'a b']"),
			"6 BGPConfiguration default spec.ignoredInterfaces[1]: \"*\" is not the name of an interface: write up to 15 letters, digits and . _ -, with * for any of them, but not * alone\n" +
				"6 BGPConfiguration default spec.ignoredInterfaces[2]: \"a b\" is not the name of an interface: write up to 15 letters, digits and . _ -, with * for any of them, but not * alone"},
		{"service range", config("serviceLoadBalancerIPs: [{}, {cidr: x}]"), `6 BGPConfiguration default spec.serviceLoadBalancerIPs[1].cidr: "x" is not a CIDR: write an address and a prefix length, as in 10.96.0.0/12`},
		{"aggregation", config("serviceLoadBalancerAggregation: Maybe"), `6 BGPConfiguration default spec.serviceLoadBalancerAggregation: "Maybe" is not known: write Enabled or Disabled`},
		{"who programs", config("programClusterRoutes: BIRD"), `6 BGPConfiguration default spec.programClusterRoutes: "BIRD" is not known: write EnabledNoEncapOnly, EnabledIPIPOnly, Enabled or Disabled`},
		{"log level", config("logSeverityScreen: loud"), `6 BGPConfiguration default spec.logSeverityScreen: "loud" is not known: write Info, Trace, Debug, Warning, Error or Fatal`},
		{"log level in any case", config("logSeverityScreen: debug"), ``},
		{"workload peering address", config("localWorkloadPeeringIPV6: 192.0.2.1"), `6 BGPConfiguration default spec.localWorkloadPeeringIPV6: 192.0.2.1 is not an IPv6 address: write one as in 2001:db8::7`},

		{"rule without action", filter("cidr: 10.0.0.0/8, matchOperator: In"), `6 BGPFilter f spec.exportV4[0].action: "" is not known: write Accept or Reject`},
		{"rule without operator", filter("cidr: 10.0.0.0/8, action: Accept"), `6 BGPFilter f spec.exportV4[0].matchOperator: is missing: write Equal, NotEqual, In or NotIn`},
		{"rule without range", filter("matchOperator: In, action: Accept"), `6 BGPFilter f spec.exportV4[0].cidr: is missing, and matchOperator has nothing to compare with: write a range, as in 10.0.0.0/8, or leave both out`},
		{"rule of another family", filter("matchOperator: In, cidr: 'fd00::/8', action: Accept"), `6 BGPFilter f spec.exportV4[0].cidr: fd00::/8 is not an IPv4 range: write one as in 10.0.0.0/8`},
		{"lengths of nothing", filter("prefixLength: {min: 8}, action: Accept"), `6 BGPFilter f spec.exportV4[0].prefixLength: needs a cidr: write the range whose prefixes are meant, as in 10.0.0.0/8`},
		{"lengths the wrong way round", filter("matchOperator: In, cidr: 10.0.0.0/8, prefixLength: {min: 24, max: 16}, action: Accept"), `6 BGPFilter f spec.exportV4[0].prefixLength: holds for no prefix inside 10.0.0.0/8: write a min that is not above max, and a max of 8 or more`},
		{"too long", filter("matchOperator: In, cidr: 10.0.0.0/8, prefixLength: {max: 33}, action: Accept"), `6 BGPFilter f spec.exportV4[0].prefixLength.max: 33 is out of range: write a number from 0 to 32, or leave the field out`},
		{"source", filter("source: Local, action: Accept"), `6 BGPFilter f spec.exportV4[0].source: "Local" is not known: write RemotePeers, or leave the field out`},
		{"peer type", filter("peerType: both, action: Accept"), `6 BGPFilter f spec.exportV4[0].peerType: "both" is not known: write eBGP or iBGP, or leave the field out`},
		{"interface", filter("interface: averyveryverylongname, action: Accept"), `6 BGPFilter f spec.exportV4[0].interface: "averyveryverylongname" is not the name of an interface: write up to 15 letters, digits and . _ -, with * for any of them, as in eth*`},
		{"two communities", filter("communities: {values: ['1:2', '1:3']}, action: Accept"), `6 BGPFilter f spec.exportV4[0].communities.values: has 2 entries: write exactly one community, as in 65000:100`},
		{"priority of a rule", filter("priority: 0, action: Accept"), `6 BGPFilter f spec.exportV4[0].priority: 0 is out of range: write a number from 1 to 2147483646, or leave the field out`},
		{"operations of a rejection", filter("action: Reject, operations: [{setPriority: {value: 1}}]"), `6 BGPFilter f spec.exportV4[0].operations: cannot be combined with action Reject, which sends no route to change: leave them out`},
		{"empty operation", filter("action: Accept, operations: [{}]"), `6 BGPFilter f spec.exportV4[0].operations[0]: sets 0 operations: write exactly one of addCommunity, prependASPath and setPriority`},
		{"prepend nothing", filter("action: Accept, operations: [{prependASPath: {}}]"), `6 BGPFilter f spec.exportV4[0].operations[0].prependASPath.prefix: has 0 entries: write 1 to 10 AS numbers`},
		{"prepend AS 0", filter("action: Accept, operations: [{prependASPath: {prefix: [0]}}]"), `6 BGPFilter f spec.exportV4[0].operations[0].prependASPath.prefix: 0 is not the number of an AS (RFC 7607): write one from 1 to 4294967295`},
		{"no priority to set", filter("action: Accept, operations: [{setPriority: {}}]"), `6 BGPFilter f spec.exportV4[0].operations[0].setPriority.value: is missing: write a number from 1 to 2147483646`},

		{"secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: '%%%', b: eA==}", `4 Secret s data.a: is not base64: encode the value, or write it plainly under stringData`},
		{"secrets are not repeated", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: 12345}", `4 Secret s stringData.a: must be a string: write it in quotes (its value is not shown here)`},

		{"listen port", fmt.Sprintf(head, "BGPConfiguration", "default", "spec: {listenPort: 0}"), `5 BGPConfiguration default spec.listenPort: 0 is out of range: write a number from 1 to 65535, or leave the field out`},
		{"bind mode", fmt.Sprintf(head, "BGPConfiguration", "default", "spec: {bindMode: All}"), `5 BGPConfiguration default spec.bindMode: "All" is not known: write None or NodeIP`},
		{"priority", fmt.Sprintf(head, "BGPConfiguration", "default", "spec: {ipv4NormalRoutePriority: 2147483647}"), `5 BGPConfiguration default spec.ipv4NormalRoutePriority: 2147483647 is out of range: write a number from 1 to 2147483646, or leave the field out`},
		{"VNI", fmt.Sprintf(head, "FelixConfiguration", "default", "spec: {vxlanVNI: 16777216}"), `5 FelixConfiguration default spec.vxlanVNI: 16777216 is out of range: write a number from 1 to 16777215, or leave the field out`},
		{"MTU", fmt.Sprintf(head, "FelixConfiguration", "default", "spec: {vxlanMTUV6: 1279}"), `5 FelixConfiguration default spec.vxlanMTUV6: 1279 is out of range: write a number from 1280 to 65535, or leave the field out`},
		{"other Felix configurations are not read", fmt.Sprintf(head, "FelixConfiguration", "node.a", "spec: {vxlanMTU: 1}"), ``},
		{"backend", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: calico-config}\ndata:\n  calico_backend: quagga", `5 ConfigMap calico-config data.calico_backend: "quagga" is not a backend: write bird (BGP), vxlan (no BGP) or none (no routes at all)`},
		{"gobgp is bird", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: calico-config}\ndata:\n  calico_backend: gobgp", ``},

		{"block name", fmt.Sprintf(head, "IPAMBlock", "b", "spec: {cidr: 10.0.0.0/31, allocations: [null, null]}"), `4 IPAMBlock b metadata.name: the block of 10.0.0.0/31 must be named 10-0-0-0-31, or Calico cannot find it`},
		{"block owner", fmt.Sprintf(head, "IPAMBlock", "10-0-0-0-31", "spec: {cidr: 10.0.0.0/31, affinity: a, allocations: [null, null]}"), `5 IPAMBlock 10-0-0-0-31 spec.affinity: "a" names no owner: write host:<node>, or leave the field out`},
		{"block too short", fmt.Sprintf(head, "IPAMBlock", "10-0-0-0-31", "spec: {cidr: 10.0.0.0/31, allocations: [null]}"), `5 IPAMBlock 10-0-0-0-31 spec.allocations: has 1 entries, but 10.0.0.0/31 has 2^1 addresses: write one entry for each address, null if it is free`},
		{"block attribute", fmt.Sprintf(head, "IPAMBlock", "10-0-0-0-31", "spec: {cidr: 10.0.0.0/31, allocations: [null, 0]}"), `5 IPAMBlock 10-0-0-0-31 spec.allocations: entry 1 (10.0.0.1) refers to attribute 0, but there are 0: write null if the address is free`},
		{"claim state", fmt.Sprintf(head, "BlockAffinity", "a-10-0-0-0-26", "spec: {cidr: 10.0.0.0/26, node: a, state: done}"), `5 BlockAffinity a-10-0-0-0-26 spec.state: "done" is not known: write confirmed, pending or pendingDeletion`},
		{"claim of nobody", fmt.Sprintf(head, "BlockAffinity", "a-10-0-0-0-26", "spec: {cidr: 10.0.0.0/26}"), `5 BlockAffinity a-10-0-0-0-26 spec.node: is missing: write the name of the node that claims the block`},
		{"claim name", fmt.Sprintf(head, "BlockAffinity", "a", "spec: {cidr: 10.0.0.0/26, node: a}"), `4 BlockAffinity a metadata.name: the claim of a on 10.0.0.0/26 must be named a-10-0-0-0-26, or Calico cannot find it`},
		{"deleted", fmt.Sprintf(head, "BlockAffinity", "a-10-0-0-0-26", "spec: {cidr: 10.0.0.0/26, node: a, deleted: perhaps}"), `5 BlockAffinity a-10-0-0-0-26 spec.deleted: "perhaps" is neither true nor false`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, problemsOf(t, test.doc)); diff != "" {
				t.Errorf("%s\nof\n%s", diff, test.doc)
			}
		})
	}
}

// problemsOf prints what is wrong with a document as the file datastore would.
func problemsOf(t *testing.T, doc string) string {
	t.Helper()
	var lines []string
	resources, problems := readAll(t, []byte(doc))
	for _, r := range resources {
		_, more := r.Word()
		problems = append(problems, more...)
	}
	for _, p := range problems {
		lines = append(lines, fmt.Sprintf("%d %s %s: %s", p.Line, p.Object, p.Field, p.Text))
	}
	return strings.Join(lines, "\n")
}

func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("x: &a [a,a,a,a,a,a,a,a,a,a]\n")
	for c := 'b'; c <= 'i'; c++ {
		fmt.Fprintf(&b, "%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	b.WriteString("apiVersion: projectcalico.org/v3\nkind: IPAMBlock\nmetadata: {name: x}\nspec: {cidr: 10.0.0.0/26, allocations: *i, unallocated: *i, attributes: [*i]}\n")
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(b.String()), &doc); err != nil {
		t.Fatal(err)
	}
	if r, _ := Resources(&doc); len(r) != 1 || len(r[0].Problems) == 0 {
		t.Errorf("%d resources without a problem", len(r))
	}
}
