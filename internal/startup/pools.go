package startup

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// poolKind is one of the two default pools.
type poolKind struct {
	family    cluster.Family
	name      string // of the IPPool
	prefix    string // of its variables
	blockSize int
	smallest  int // block size, as a prefix length
	largest   int
	nat       bool // natOutgoing where nothing is said
}

// The default pools (Calico: node/pkg/lifecycle/startup).
var (
	pool4 = poolKind{cluster.IPv4, "default-ipv4-ippool", "CALICO_IPV4POOL_", 26, 20, 32, true}
	pool6 = poolKind{cluster.IPv6, "default-ipv6-ippool", "CALICO_IPV6POOL_", 122, 116, 128, false}
)

func (k poolKind) env(field string) string { return k.prefix + field }

// pool reads the settings of a default pool.
func (r *reader) pool(k poolKind) (s PoolSettings) {
	switch v := strings.TrimSpace(r.env(k.env("CIDR"))); v {
	case "none":
		s.Skip = true
		return s
	case "":
	default:
		p, err := netip.ParsePrefix(v)
		if err != nil || cluster.FamilyOf(p.Addr()) != k.family || p.Addr().Is4In6() {
			r.bad(k.env("CIDR"), "write an %v address range, as in %s, or none for no pool", k.family, map[cluster.Family]string{cluster.IPv4: "10.244.0.0/16", cluster.IPv6: "fd00:10:244::/48"}[k.family])
		}
		s.CIDR = p.Masked()
	}
	if k.family == cluster.IPv4 {
		s.IPIP = r.mode(k.env("IPIP"))
	}
	s.VXLAN = r.mode(k.env("VXLAN"))
	if s.IPIP != cluster.Never && s.VXLAN != cluster.Never {
		r.bad(k.env("VXLAN"), "%s is %v, but a pool has one encapsulation: set one of the two to Never", k.env("IPIP"), s.IPIP)
	}
	s.BlockSize = r.blockSize(k, s.CIDR)
	s.NATOutgoing = r.boolean(k.env("NAT_OUTGOING"), k.nat)
	s.DisableBGPExport = r.boolean(k.env("DISABLE_BGP_EXPORT"), false)
	s.NodeSelector = r.env(k.env("NODE_SELECTOR"))
	if sel, err := calico.ParseSelector(s.NodeSelector); err != nil {
		r.bad(k.env("NODE_SELECTOR"), "%v; a selector reads as in: rack == 'r1' && !has(edge)", err)
	} else if sel.UsesGlobal() {
		r.bad(k.env("NODE_SELECTOR"), "global() has no meaning for nodes: write all()")
	}
	return s
}

func (r *reader) blockSize(k poolKind, cidr netip.Prefix) int {
	name := k.env("BLOCK_SIZE")
	size := k.blockSize
	if v := r.env(name); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < k.smallest || n > k.largest {
			r.bad(name, "write a prefix length from %d to %d", k.smallest, k.largest)
			return size
		}
		size = n
	}
	if cidr.IsValid() && cidr.Bits() > size {
		r.bad(k.env("CIDR"), "a block of /%d does not fit: widen the range, or set %s to a number from %d to %d", size, name, max(k.smallest, cidr.Bits()), k.largest)
	}
	return size
}

// preferred4 is the IPv4 range where nothing else is said, and the ranges that stand in for it where the host has an address
// in it are 172.16.0.0/16 to 172.31.0.0/16.
var preferred4 = netip.MustParsePrefix("192.168.0.0/16")

// range4 chooses the IPv4 range of the default pool: the first candidate without an address of this host. If all have one
// the preferred range is taken anyway, as in Calico.
func range4(host []Interface) netip.Prefix {
	candidates := []netip.Prefix{preferred4}
	for i := byte(16); i <= 31; i++ {
		candidates = append(candidates, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i}), 16))
	}
	for _, c := range candidates {
		if !holds(c, host) {
			return c
		}
	}
	return preferred4
}

func holds(p netip.Prefix, host []Interface) bool {
	for _, i := range host {
		for _, a := range i.Addrs {
			if p.Contains(a.Addr()) {
				return true
			}
		}
	}
	return false
}

// range6 makes a random unique local /48 (RFC 4193 section 3.2.2).
func range6() netip.Prefix {
	a := [16]byte{0xfd}
	_, _ = rand.Read(a[1:6]) // never fails, by its documentation
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// podSubnets returns the ranges of kubeadm's ConfigMap kubeadm-config: networking.podSubnet of its ClusterConfiguration,
// the first of each family. Ranges with a block larger than themselves or of no use otherwise are told by whoever makes the pool.
func podSubnets(data map[string]string) (v4, v6 netip.Prefix, err error) {
	const key = "ClusterConfiguration"
	var c struct {
		Networking struct {
			PodSubnet string `yaml:"podSubnet"`
		} `yaml:"networking"`
	}
	if err := yaml.Unmarshal([]byte(data[key]), &c); err != nil {
		return v4, v6, fmt.Errorf("ConfigMap kubeadm-config, %s: %w", key, err)
	}
	if strings.TrimSpace(c.Networking.PodSubnet) == "" {
		return v4, v6, nil
	}
	for s := range strings.SplitSeq(c.Networking.PodSubnet, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		switch {
		case err != nil || p.Addr().Is4In6():
			return netip.Prefix{}, netip.Prefix{}, fmt.Errorf("ConfigMap kubeadm-config, networking.podSubnet: %q is not a CIDR: mend it, or set %s and %s", s, pool4.env("CIDR"), pool6.env("CIDR"))
		case p.Addr().Is4() && !v4.IsValid():
			v4 = p.Masked()
		case p.Addr().Is6() && !v6.IsValid():
			v6 = p.Masked()
		}
	}
	return v4, v6, nil
}

// object returns a default pool, or the first reason why Calico would refuse it.
func (s *PoolSettings) object(k poolKind, cidr netip.Prefix) (*calico.IPPool, error) {
	p := &calico.IPPool{Spec: calico.IPPoolSpec{
		CIDR: cidr.String(), IPIPMode: s.IPIP.String(), VXLANMode: s.VXLAN.String(), NATOutgoing: s.NATOutgoing,
		DisableBGPExport: s.DisableBGPExport, BlockSize: s.BlockSize, NodeSelector: s.NodeSelector,
	}}
	p.Name = k.name
	if p.Spec.NodeSelector == "" {
		p.Spec.NodeSelector = "all()"
	}
	if _, problems := p.Pool(); len(problems) > 0 {
		return nil, fmt.Errorf("%w: default pool %v: %s: %s; set %s to another range, or to none", ErrRefused, cidr, problems[0].Field, problems[0].Text, k.env("CIDR"))
	}
	return p, nil
}

// missing reports whether no pool of a family exists, whatever its name or state.
func (k poolKind) missing(pools []calico.Object) bool {
	for _, obj := range pools {
		p, ok := obj.(*calico.IPPool)
		if !ok {
			continue
		}
		if c, err := netip.ParsePrefix(p.Spec.CIDR); err == nil && cluster.FamilyOf(c.Addr()) == k.family {
			return false
		}
	}
	return true
}
