package install

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/internal/calico"
)

// maxPools is the operator's limit.
const maxPools = 25

// modes are the two modes of an IPPool for each encapsulation.
func modes(encapsulation string) (ipip, vxlan string) {
	switch encapsulation {
	case "IPIP":
		return "Always", "Never"
	case "IPIPCrossSubnet":
		return "CrossSubnet", "Never"
	case "VXLAN":
		return "Never", "Always"
	case "VXLANCrossSubnet":
		return "Never", "CrossSubnet"
	}
	return "Never", "Never"
}

// pools reads the pools. No list at all means the default pool, where the CNI plugin uses pools; an empty list means none.
func (r *reading) pools(list *[]poolManifest, cni, provider string, bgp bool) (out []*calico.IPPool) {
	const field = networkField + "ipPools"
	if list == nil {
		if cni != calicoCNI {
			return nil
		}
		list = &[]poolManifest{{}}
	}
	if len(*list) > maxPools {
		r.bad(field, "%d pools are too many: the operator takes up to %d", len(*list), maxPools)
	}
	names := map[string]string{}
	var cidrs []netip.Prefix
	has := [2]bool{}
	for i := range *list {
		at := fmt.Sprintf("%s[%d]", field, i)
		p, cidr := r.pool(at, &(*list)[i], cni, provider, bgp)
		family := 0
		if cidr.Addr().Is6() {
			family = 1
		}
		if p.Name == "" {
			p.Name = defaultName(cidr, has[family])
		}
		has[family] = true
		if before, taken := names[p.Name]; taken {
			r.bad(at+".name", "%s has the name %s already: give this pool another", before, p.Name)
		}
		names[p.Name] = at
		for j, other := range cidrs {
			if cidr.IsValid() && other.Overlaps(cidr) {
				r.bad(at+".cidr", "%v overlaps %v of %s[%d]: choose ranges apart from one another", cidr, other, field, j)
			}
		}
		cidrs = append(cidrs, cidr)
		out = append(out, p)
	}
	return out
}

// defaultName is the name the operator gives a pool: the first of a family has the one calico-node would give it.
func defaultName(cidr netip.Prefix, second bool) string {
	switch {
	case second:
		return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr.String())
	case cidr.Addr().Is6():
		return "default-ipv6-ippool"
	}
	return "default-ipv4-ippool"
}

// pool reads one pool and holds it against the rules of IPPools.
func (r *reading) pool(at string, m *poolManifest, cni, provider string, bgp bool) (*calico.IPPool, netip.Prefix) {
	before := len(r.errs)
	eks := provider == "EKS"
	p := &calico.IPPool{Spec: calico.IPPoolSpec{
		CIDR:             r.text(at+".cidr", &m.CIDR, map[bool]string{false: "192.168.0.0/16", true: "172.16.0.0/16"}[eks]),
		NATOutgoing:      r.word(at+".natOutgoing", &m.NATOutgoing, "Enabled", "Enabled", "Disabled") == "Enabled",
		NodeSelector:     r.text(at+".nodeSelector", &m.NodeSelector, "all()"),
		BlockSize:        r.number(at+".blockSize", &m.BlockSize),
		DisableBGPExport: r.boolean(at+".disableBGPExport", &m.DisableBGPExport),
		Disabled:         r.boolean(at+".disableNewAllocations", &m.DisableNew),
		AllowedUses:      r.list(at+".allowedUses", &m.AllowedUses),
		AssignmentMode:   r.text(at+".assignmentMode", &m.AssignmentMode, ""),
	}}
	p.Name = r.text(at+".name", &m.Name, "")
	cidr, _ := netip.ParsePrefix(p.Spec.CIDR) // what is wrong with it is told below
	if p.Spec.BlockSize == 0 {
		p.Spec.BlockSize = 26
		if cidr.Addr().Is6() {
			p.Spec.BlockSize = 122
		}
	}
	otherwise := "IPIP"
	switch {
	case cidr.Addr().Is6() || cni != calicoCNI:
		otherwise = "None"
	case eks:
		otherwise = "VXLAN"
	}
	enc := r.word(at+".encapsulation", &m.Encapsulation, otherwise, "IPIP", "IPIPCrossSubnet", "VXLAN", "VXLANCrossSubnet", "None")
	p.Spec.IPIPMode, p.Spec.VXLANMode = modes(enc)
	if !bgp && cni == calicoCNI && p.Spec.VXLANMode == "Never" {
		r.bad(at+".encapsulation", "%s needs BGP, and %sbgp is Disabled: write VXLAN or VXLANCrossSubnet, or enable bgp", enc, networkField)
	}
	if len(r.errs) > before {
		return p, cidr
	}
	_, problems := p.Pool()
	for _, problem := range problems {
		r.bad(at+"."+poolField(problem.Field), "%s", problem.Text)
	}
	return p, cidr
}

// poolField names a field of an IPPool as the Installation has it.
func poolField(field string) string {
	field = strings.TrimPrefix(field, "spec.")
	switch field {
	case "ipipMode", "vxlanMode":
		return "encapsulation"
	}
	return field
}
