package install

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/startup"
)

// Installation is what an Installation says of routing, with the operator's defaults.
type Installation struct {
	Backend cluster.Backend
	BGP     bool
	MTU     int // bytes, 0 = by the host's interfaces
	Pools   []*calico.IPPool
	// Method4 and Method6 are autodetection methods; empty: nodes have no address of that family.
	Method4, Method6 string
}

const networkField = "spec.calicoNetwork."

// The CNI plugin that uses Calico's address pools.
const calicoCNI = "Calico"

// Read reads a file with an Installation in it.
func Read(text []byte) (*Installation, error) {
	m, err := find(text)
	if err != nil {
		return nil, err
	}
	r, n := &reading{}, &m.Spec.Network
	provider := r.text("spec.kubernetesProvider", &m.Spec.Provider, "")
	cni := r.text("spec.cni.type", &m.Spec.CNI.Type, defaultCNI(provider))
	in := &Installation{MTU: r.number(networkField+"mtu", &n.MTU)}
	if in.MTU != 0 && (in.MTU < 68 || in.MTU > 65535) { // RFC 791 section 3.2
		r.bad(networkField+"mtu", "%d is out of range: write the MTU in bytes, from 68 to 65535, or leave the field out", in.MTU)
	}
	r.word(networkField+"clusterRoutingMode", &n.Routing, "", "BIRD", "Felix", "FelixIPIPOnly")
	in.BGP = r.bgp(&n.BGP, cni, provider)
	in.Backend = r.backend(m, in.BGP, cni)
	in.Pools = r.pools(n.Pools, cni, provider, in.BGP)
	has4, has6 := families(in.Pools)
	in.Method4 = r.method("nodeAddressAutodetectionV4", n.Detect4, cluster.IPv4, has4, provider)
	in.Method6 = r.method("nodeAddressAutodetectionV6", n.Detect6, cluster.IPv6, has6, provider)
	if in.Method4 == "" && in.Method6 == "" && in.Backend != cluster.BackendNone && len(r.errs) == 0 {
		r.bad(networkField+"nodeAddressAutodetectionV4", "there is no pool to tell which addresses nodes have: write firstFound: true here or in nodeAddressAutodetectionV6")
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return in, nil
}

// defaultCNI is the plugin of a provider where none is named.
func defaultCNI(provider string) string {
	switch provider {
	case "EKS":
		return "AmazonVPC"
	case "AKS":
		return "AzureVNET"
	case "GKE":
		return "GKE"
	}
	return calicoCNI
}

func (r *reading) bgp(n *yaml.Node, cni, provider string) bool {
	otherwise := "Enabled"
	if cni != calicoCNI || provider == "EKS" {
		otherwise = "Disabled"
	}
	return r.word(networkField+"bgp", n, otherwise, "Enabled", "Disabled") == "Enabled"
}

func (r *reading) backend(m *manifest, bgp bool, cni string) cluster.Backend {
	dataplane := r.word(networkField+"linuxDataplane", &m.Spec.Network.Dataplane, "Iptables", "Iptables", "Nftables", "BPF", "VPP")
	ipam := r.text("spec.cni.ipam.type", &m.Spec.CNI.IPAM.Type, calicoCNI)
	switch {
	case dataplane == "VPP":
		return cluster.BackendNone
	case bgp:
		return cluster.BackendBird
	case cni != calicoCNI || ipam == "HostLocal":
		return cluster.BackendNone
	}
	return cluster.BackendVXLAN
}

func families(pools []*calico.IPPool) (v4, v6 bool) {
	for _, p := range pools {
		if strings.Contains(p.Spec.CIDR, ":") {
			v6 = true
		} else {
			v4 = true
		}
	}
	return v4, v6
}

// method returns the method in the words of the environment. has says that there is a pool of the family.
func (r *reading) method(name string, d *autodetection, f cluster.Family, has bool, provider string) string {
	field := networkField + name
	if d == nil {
		switch {
		case !has:
			return ""
		case f == cluster.IPv4 && provider == "EKS":
			return "can-reach=8.8.8.8"
		case f == cluster.IPv4 && provider == "DockerEnterprise":
			return "skip-interface=^br-.*"
		}
		return "first-found"
	}
	var chosen, fields []string
	use := func(name, method string) { fields, chosen = append(fields, name), append(chosen, method) }
	if r.boolean(field+".firstFound", &d.FirstFound) {
		use("firstFound", "first-found")
	}
	if given(&d.Kubernetes) {
		r.word(field+".kubernetes", &d.Kubernetes, "", "NodeInternalIP")
		use("kubernetes", "kubernetes-internal-ip")
	}
	for _, x := range []struct {
		name, method string
		node         *yaml.Node
	}{{"interface", "interface=", &d.Interface}, {"skipInterface", "skip-interface=", &d.SkipInterface}, {"canReach", "can-reach=", &d.CanReach}} {
		if given(x.node) {
			use(x.name, x.method+r.text(field+"."+x.name, x.node, ""))
		}
	}
	if given(&d.CIDRs) {
		use("cidrs", "cidr="+strings.Join(r.list(field+".cidrs", &d.CIDRs), ","))
	}
	if len(chosen) != 1 {
		what := "none is given"
		if len(chosen) > 1 {
			what = fmt.Sprintf("%s are given", strings.Join(fields, " and "))
		}
		r.bad(field, "%s: write exactly one of firstFound: true, kubernetes: NodeInternalIP, interface, skipInterface, canReach, cidrs", what)
		return ""
	}
	if _, err := startup.ParseMethod(chosen[0], f); err != nil {
		r.bad(field+"."+fields[0], "%v", err)
	}
	return chosen[0]
}
