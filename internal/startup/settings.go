package startup

import (
	"errors"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// The environment, named and meant as in calico-node (node/pkg/lifecycle/startup).
const (
	EnvNodeName     = "NODENAME"
	EnvNodeNameFile = "CALICO_NODENAME_FILE"
	EnvMTUFile      = "CARACAL_MTU_FILE" // ours: Calico's is where DefaultMTUFile is
	EnvHostName     = "HOSTNAME"
	EnvNodeRef      = "CALICO_K8S_NODE_REF"
	EnvBackend      = "CALICO_NETWORKING_BACKEND"
	EnvNetworking   = "CALICO_NETWORKING"
	EnvWait         = "WAIT_FOR_DATASTORE"
	EnvIP           = "IP"
	EnvIP6          = "IP6"
	EnvMethod       = "IP_AUTODETECTION_METHOD"
	EnvMethod6      = "IP6_AUTODETECTION_METHOD"
	EnvPoll         = "AUTODETECT_POLL_INTERVAL"
	EnvNoIPCheck    = "DISABLE_NODE_IP_CHECK"
	EnvAS           = "AS"
	EnvRouterID     = "CALICO_ROUTER_ID"
	EnvNoPools      = "NO_DEFAULT_POOLS"
	EnvIPv6Support  = "FELIX_IPV6SUPPORT"
	EnvClusterType  = "CLUSTER_TYPE"
	EnvUsePodCIDR   = "USE_POD_CIDR"
	EnvIPIPMTU      = "FELIX_IPINIPMTU"
	EnvVXLANMTU     = "FELIX_VXLANMTU"
	EnvVXLANMTU6    = "FELIX_VXLANMTUV6"
	EnvMTUPattern   = "FELIX_MTUIFACEPATTERN"
	EnvClusterIPs   = "CALICO_ADVERTISE_CLUSTER_IPS"
)

// Where Calico's programs look for what a start leaves on disk.
const (
	DefaultNodeNameFile = "/var/lib/calico/nodename"
	DefaultMTUFile      = "/var/lib/calico/mtu"
)

// defaultPoll is how often the monitor looks without being woken (Calico: DEFAULT_MONITOR_IP_POLL_INTERVAL).
const defaultPoll = time.Minute

// Settings are what the environment says about the start of a node.
type Settings struct {
	Node         string          // name in the cluster; NODENAME, empty when it is not set: see NodeName
	NodeRef      string          // name of the Kubernetes Node; empty = Node
	NodeNameFile string          // where the name is left for the CNI plugin and for probes
	MTUFile      string          // where the MTU of workloads is left for the CNI plugin
	Backend      cluster.Backend // until the datastore names one

	WaitForDatastore bool
	IP, IP6          AddressSetting
	Poll             time.Duration // period of the address monitor
	SkipConflicts    bool          // no check for nodes with our addresses
	ASN              uint32        // 0 = not said: the Node keeps what it has
	RouterID         RouterID

	NoDefaultPools bool
	Pool4, Pool6   PoolSettings // of the default pools
	IPv6           bool         // FELIX_IPV6SUPPORT; false: no default IPv6 pool
	ClusterType    string       // words with commas, for ClusterInformation
	MTU            MTUSettings
	// ClusterIPs stand for serviceClusterIPs of BGPConfiguration; none: that counts.
	ClusterIPs []netip.Prefix

	// Notes are what an operator should know about the environment although it is no error.
	Notes []string
}

// AddressMode says where a node's address comes from.
type AddressMode uint8

// The modes of IP and IP6.
const (
	Unset      AddressMode = iota // the stored address; without one, IP is detected and IP6 has none
	Autodetect                    // detected by the method
	None                          // as stored, never detected
	Explicit                      // the given address
)

// AddressSetting is the value of IP or IP6 with its autodetection method.
type AddressSetting struct {
	Mode   AddressMode
	Addr   netip.Prefix // of Explicit; a host prefix where none was given
	Bare   bool         // Addr was given without a prefix length
	Method Method
}

// RouterID is the value of CALICO_ROUTER_ID. The zero value means that the node's IPv4 address is used.
type RouterID struct {
	Hash bool       // made of the node's name, also where the node has an IPv4 address
	Addr netip.Addr // this one, of IPv4 form
}

// PoolSettings are the settings of a default pool.
type PoolSettings struct {
	Skip             bool         // CIDR none: there shall be no default pool of this family
	CIDR             netip.Prefix // invalid: chosen at the start
	IPIP, VXLAN      cluster.Mode
	BlockSize        int
	NATOutgoing      bool
	DisableBGPExport bool
	NodeSelector     string
}

// MTUSettings are the MTUs the environment sets, in bytes, 0 = not set.
type MTUSettings struct {
	IPIP, VXLAN4, VXLAN6 int
	Pattern              string // of the interfaces that bound the workloads' MTU; empty = not set
}

// Asked reports whether the environment asks for addresses to be found or written. A datastore that somebody else has
// filled, such as a directory of manifests, should be left alone otherwise.
func (s *Settings) Asked() bool {
	for _, a := range []AddressSetting{s.IP, s.IP6} {
		if a.Mode == Autodetect || a.Mode == Explicit {
			return true
		}
	}
	return false
}

// Parse reads the environment. With an error the Settings are nil; it names every bad variable and its remedy.
func Parse(env func(string) string) (*Settings, error) {
	r := &reader{env: env}
	s := &Settings{
		Node:          env(EnvNodeName),
		NodeRef:       env(EnvNodeRef),
		NodeNameFile:  r.or(EnvNodeNameFile, DefaultNodeNameFile),
		MTUFile:       r.or(EnvMTUFile, DefaultMTUFile),
		Backend:       r.backend(),
		IP:            r.address(EnvIP, EnvMethod, cluster.IPv4),
		IP6:           r.address(EnvIP6, EnvMethod6, cluster.IPv6),
		Poll:          r.poll(),
		SkipConflicts: r.boolean(EnvNoIPCheck, false),
		ASN:           r.asn(),
		RouterID:      r.routerID(),
		IPv6:          r.boolean(EnvIPv6Support, true),
		ClusterType:   env(EnvClusterType),
		MTU: MTUSettings{
			IPIP: r.mtu(EnvIPIPMTU), VXLAN4: r.mtu(EnvVXLANMTU), VXLAN6: r.mtu(EnvVXLANMTU6),
			Pattern: r.pattern(EnvMTUPattern),
		},
		ClusterIPs: r.ranges(EnvClusterIPs),
	}
	s.WaitForDatastore = env(EnvWait) == "true"
	if v := env(EnvWait); v != "" && v != "true" && v != "false" {
		r.note("%s=%q does not wait, as in Calico: only the exact word true does", EnvWait, v)
	}
	if r.boolean(EnvUsePodCIDR, false) {
		r.note("%s is set: addresses that host-local IPAM hands out of the nodes' podCIDRs are not routed; use Calico's IPAM", EnvUsePodCIDR)
	}
	r.pools(s)
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	s.Notes = r.notes
	return s, nil
}

// pools reads the settings of the default pools. Those of a pool that will not be made are not looked at, as in Calico.
func (r *reader) pools(s *Settings) {
	s.NoDefaultPools = r.boolean(EnvNoPools, false)
	if s.NoDefaultPools {
		s.Pool4.Skip, s.Pool6.Skip = true, true
		for _, name := range []string{pool4.env("CIDR"), pool6.env("CIDR")} {
			if v := r.env(name); v != "" {
				r.bad(name, "%s says that there shall be no default pool: unset one of the two", EnvNoPools)
			}
		}
		return
	}
	s.Pool4, s.Pool6 = r.pool(pool4), r.pool(pool6)
}
