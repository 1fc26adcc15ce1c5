package vxlan

import (
	"fmt"
	"net/netip"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// deviceOf names the devices by family: without a Felix beside us, and with one.
var deviceOf = map[bool][2]string{
	false: {routes.DeviceVXLAN, routes.DeviceVXLAN6},
	true:  {routes.DeviceBesideVXLAN, routes.DeviceBesideVXLAN6},
}

// overhead is what a packet grows by, in bytes: the outer IPv4 (20) or IPv6 (40) header, UDP (8), VXLAN (8, RFC 7348 section 5)
// and the inner Ethernet header (14).
var overhead = [2]int{50, 70}

// ground is everything but nodes, pools and blocks that routes are made from: our own node, the host, the settings. Two equal
// grounds lead to equal routes.
type ground struct {
	node    string
	backend cluster.Backend
	felix   Felix
	fam     [2]footing
}

// footing is the ground of one family.
type footing struct {
	device string       // its name
	used   bool         // a VXLAN pool of this family is in effect
	self   netip.Prefix // our own address and subnet
	parent string       // the interface that holds it
	src    netip.Addr   // FelixConfiguration deviceRouteSourceAddress(IPv6)
	addr   netip.Addr   // our tunnel address
	mac    cluster.MAC
	mtu    int // of the device, in bytes; 0 = not known
	vni    uint32
	port   uint16

	noParent string // why nothing can be sent on the underlay
	noDevice string // why there is no device
}

// survey reads the ground. r must be up to date.
func survey(node string, in *Input, r *roll) ground {
	g := ground{node: node, backend: in.Backend, felix: in.Felix}
	switch g.backend {
	case cluster.BackendVXLAN, cluster.BackendNone:
	default:
		g.backend = cluster.BackendBird // Calico reads an empty backend as bird
	}
	if g.backend == cluster.BackendNone {
		return g
	}
	for _, p := range in.State.Pools() {
		if enc, _ := p.Encapsulation(); enc == cluster.VXLAN {
			g.fam[index(cluster.FamilyOf(p.CIDR.Addr()))].used = true
		}
	}
	for i := range families {
		g.fam[i].read(node, i, in, r)
	}
	return g
}

// index is a family's place in everything kept by family.
func index(f cluster.Family) int {
	if f == cluster.IPv4 {
		return 0
	}
	return 1
}

func (t *footing) read(node string, i int, in *Input, r *roll) {
	f, felix := families[i], in.State.Felix()
	t.src = [2]netip.Addr{felix.RouteSource4, felix.RouteSource6}[i]
	t.device = deviceOf[in.Felix.Beside][i]
	t.findParent(node, f, in)
	if left := in.Felix.Left[i]; left != "" && t.used {
		t.noDevice = left
		return
	}
	if !t.used {
		t.noDevice = fmt.Sprintf("no %v pool with VXLAN is in effect", f)
		return
	}
	t.vni, t.port = felix.VXLANVNI, felix.VXLANPort
	if t.vni == 0 {
		t.vni = cluster.DefaultFelix().VXLANVNI
	}
	if t.port == 0 {
		t.port = cluster.DefaultFelix().VXLANPort
	}
	t.mtu = [2]int{felix.VXLANMTU, felix.VXLANMTUv6}[i]
	if t.mtu == 0 && t.noParent == "" {
		t.mtu = max(0, in.Host.UnderlayMTU(t.self.Addr())-overhead[i])
	}
	e := &r.get(node).ends[i]
	t.addr, t.mac = e.addr, e.mac
	switch {
	case t.noParent != "":
		t.noDevice = t.noParent
	case !e.addr.IsValid():
		t.noDevice = fmt.Sprintf("waiting for our own tunnel address (%s of node %s)", fieldsOf[i].addr, node)
	case e.winner != "":
		t.noDevice = "no device of our own: " + e.conflict(node)
	}
}

func (t *footing) findParent(node string, f cluster.Family, in *Input) {
	self := in.State.Node(node)
	if self == nil {
		t.noParent = fmt.Sprintf("our own node %s is not in the datastore", node)
		return
	}
	t.self = self.Addr(f)
	if !t.self.IsValid() {
		t.noParent = fmt.Sprintf("our own node %s has no %v address (%s)", node, f, fieldsOf[index(f)].host)
		return
	}
	parent := in.Host.ByAddr(t.self.Addr())
	if parent == nil {
		t.noParent = fmt.Sprintf("no interface of this host holds our own address %v (%s of node %s)", t.self.Addr(), fieldsOf[index(f)].host, node)
		return
	}
	t.parent = parent.Name
}

// sameSubnet judges by our own mask only, as Calico does; but nobody is in the subnet of the loopback interface, which holds our address where links have none.
func (t *footing) sameSubnet(remote netip.Addr) bool {
	return remote.IsValid() && t.self.IsValid() && t.self.Contains(remote) && t.parent != routes.Loopback
}

// links returns the devices that are wanted; never nil.
func (g *ground) links() []routes.Link {
	out := []routes.Link{}
	if g.backend == cluster.BackendNone {
		return out
	}
	for i := range families {
		t := &g.fam[i]
		if t.noDevice != "" {
			continue
		}
		out = append(out, routes.Link{
			Name: t.device, Kind: "vxlan", MTU: t.mtu, MAC: t.mac,
			Addresses: []netip.Prefix{netip.PrefixFrom(t.addr, t.addr.BitLen())},
			VXLAN:     &routes.VXLAN{VNI: t.vni, Port: t.port, Parent: t.parent, Local: t.self.Addr()},
		})
	}
	return out
}

// sameLinks reports whether two grounds want the same devices.
func (g *ground) sameLinks(o *ground) bool {
	for i := range families {
		a, b := g.fam[i], o.fam[i]
		if (a.noDevice == "") != (b.noDevice == "") {
			return false
		}
		a.src, b.src = netip.Addr{}, netip.Addr{}
		a.self, b.self = netip.PrefixFrom(a.self.Addr(), 0), netip.PrefixFrom(b.self.Addr(), 0)
		if a.noDevice == "" && a != b {
			return false
		}
	}
	return true
}
