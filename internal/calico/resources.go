package calico

// IPPool is a range of workload addresses and how they are reached (API: ippool.go).
type IPPool struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       IPPoolSpec    `yaml:"spec" json:"spec"`
	Status     *IPPoolStatus `yaml:"status,omitempty" json:"status,omitempty"`
}

// ConditionAllocatable is "False" where Calico's pool controller forbids new addresses (CIDROverlap, Terminating,
// PoolDisabled).
const ConditionAllocatable = "Allocatable"

// IPPoolStatus is what Calico's pool controller says of a pool; Kubernetes only.
type IPPoolStatus struct {
	Conditions []Condition `yaml:"conditions,omitempty" json:"conditions,omitempty"`
}

// Condition is the part of a Kubernetes condition that is read.
type Condition struct {
	Type    string `yaml:"type" json:"type"`
	Status  string `yaml:"status" json:"status"` // True, False, Unknown
	Reason  string `yaml:"reason,omitempty" json:"reason,omitempty"`
	Message string `yaml:"message,omitempty" json:"message,omitempty"`
}

// IPPoolSpec is the part of an IPPool that is read.
type IPPoolSpec struct {
	CIDR             string `yaml:"cidr" json:"cidr"`
	IPIPMode         string `yaml:"ipipMode,omitempty" json:"ipipMode,omitempty"`   // Never, Always, CrossSubnet; empty = Never
	VXLANMode        string `yaml:"vxlanMode,omitempty" json:"vxlanMode,omitempty"` // as IPIPMode
	NATOutgoing      bool   `yaml:"natOutgoing,omitempty" json:"natOutgoing,omitempty"`
	Disabled         bool   `yaml:"disabled,omitempty" json:"disabled,omitempty"`
	DisableBGPExport bool   `yaml:"disableBGPExport,omitempty" json:"disableBGPExport,omitempty"`
	BlockSize        int    `yaml:"blockSize,omitempty" json:"blockSize,omitempty"` // prefix length; 0 = 26, 122
	NodeSelector     string `yaml:"nodeSelector,omitempty" json:"nodeSelector,omitempty"`
	// NamespaceSelector limits a pool to the workloads of some namespaces; read by address assignment only.
	NamespaceSelector string   `yaml:"namespaceSelector,omitempty" json:"namespaceSelector,omitempty"`
	AllowedUses       []string `yaml:"allowedUses,omitempty" json:"allowedUses,omitempty"`
	AssignmentMode    string   `yaml:"assignmentMode,omitempty" json:"assignmentMode,omitempty"` // Automatic, Manual
}

// Node is a member of the cluster as calicoctl shows it. Kubernetes' own Node is another kind (apiVersion v1).
type Node struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       NodeSpec `yaml:"spec" json:"spec"`
}

// NodeSpec is the part of a Node that is read.
type NodeSpec struct {
	BGP                  *NodeBGPSpec `yaml:"bgp,omitempty" json:"bgp,omitempty"`
	IPv4VXLANTunnelAddr  string       `yaml:"ipv4VXLANTunnelAddr,omitempty" json:"ipv4VXLANTunnelAddr,omitempty"`
	IPv6VXLANTunnelAddr  string       `yaml:"ipv6VXLANTunnelAddr,omitempty" json:"ipv6VXLANTunnelAddr,omitempty"`
	VXLANTunnelMACAddr   string       `yaml:"vxlanTunnelMACAddr,omitempty" json:"vxlanTunnelMACAddr,omitempty"`
	VXLANTunnelMACAddrV6 string       `yaml:"vxlanTunnelMACAddrV6,omitempty" json:"vxlanTunnelMACAddrV6,omitempty"`
	// Interfaces is written at the start of a node.
	Interfaces []NodeInterface `yaml:"interfaces,omitempty" json:"interfaces,omitempty"`
}

// NodeBGPSpec holds a node's addresses. They are called BGP for historical reasons: VXLAN and IPIP use them as well.
type NodeBGPSpec struct {
	ASNumber                *ASNumber `yaml:"asNumber,omitempty" json:"asNumber,omitempty"`
	IPv4Address             string    `yaml:"ipv4Address,omitempty" json:"ipv4Address,omitempty"`
	IPv6Address             string    `yaml:"ipv6Address,omitempty" json:"ipv6Address,omitempty"`
	IPv4IPIPTunnelAddr      string    `yaml:"ipv4IPIPTunnelAddr,omitempty" json:"ipv4IPIPTunnelAddr,omitempty"`
	RouteReflectorClusterID string    `yaml:"routeReflectorClusterID,omitempty" json:"routeReflectorClusterID,omitempty"`
}

// BGPConfiguration holds BGP settings: of the cluster when named default, of one node when named node.<name>
// (API: bgpconfig.go).
type BGPConfiguration struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       BGPConfigurationSpec `yaml:"spec" json:"spec"`
}

// BGPConfigurationSpec is the part of a BGPConfiguration that is read. A nil pointer means Calico's default.
type BGPConfigurationSpec struct {
	ASNumber                *ASNumber `yaml:"asNumber,omitempty" json:"asNumber,omitempty"`
	NodeToNodeMeshEnabled   *bool     `yaml:"nodeToNodeMeshEnabled,omitempty" json:"nodeToNodeMeshEnabled,omitempty"`
	ListenPort              *int      `yaml:"listenPort,omitempty" json:"listenPort,omitempty"`
	BindMode                string    `yaml:"bindMode,omitempty" json:"bindMode,omitempty"` // None, NodeIP
	NodeMeshMaxRestartTime  *Duration `yaml:"nodeMeshMaxRestartTime,omitempty" json:"nodeMeshMaxRestartTime,omitempty"`
	IPv4NormalRoutePriority *int      `yaml:"ipv4NormalRoutePriority,omitempty" json:"ipv4NormalRoutePriority,omitempty"`
	IPv6NormalRoutePriority *int      `yaml:"ipv6NormalRoutePriority,omitempty" json:"ipv6NormalRoutePriority,omitempty"`
	NodeMeshPassword        *Password `yaml:"nodeMeshPassword,omitempty" json:"nodeMeshPassword,omitempty"`

	Communities          []NamedCommunity      `yaml:"communities,omitempty" json:"communities,omitempty"`
	PrefixAdvertisements []PrefixAdvertisement `yaml:"prefixAdvertisements,omitempty" json:"prefixAdvertisements,omitempty"`
	IgnoredInterfaces    []string              `yaml:"ignoredInterfaces,omitempty" json:"ignoredInterfaces,omitempty"`

	ServiceClusterIPs              []CIDRBlock `yaml:"serviceClusterIPs,omitempty" json:"serviceClusterIPs,omitempty"`
	ServiceExternalIPs             []CIDRBlock `yaml:"serviceExternalIPs,omitempty" json:"serviceExternalIPs,omitempty"`
	ServiceLoadBalancerIPs         []CIDRBlock `yaml:"serviceLoadBalancerIPs,omitempty" json:"serviceLoadBalancerIPs,omitempty"`
	ServiceLoadBalancerAggregation string      `yaml:"serviceLoadBalancerAggregation,omitempty" json:"serviceLoadBalancerAggregation,omitempty"` // Enabled, Disabled

	// Read only to check them: BIRD's logging, what Felix does for workload peers. ProgramClusterRoutes matters beside a Felix.
	LogSeverityScreen        string `yaml:"logSeverityScreen,omitempty" json:"logSeverityScreen,omitempty"`
	LocalWorkloadPeeringIPV4 string `yaml:"localWorkloadPeeringIPV4,omitempty" json:"localWorkloadPeeringIPV4,omitempty"`
	LocalWorkloadPeeringIPV6 string `yaml:"localWorkloadPeeringIPV6,omitempty" json:"localWorkloadPeeringIPV6,omitempty"`
	ProgramClusterRoutes     string `yaml:"programClusterRoutes,omitempty" json:"programClusterRoutes,omitempty"`
}

// NamedCommunity gives a community a name for PrefixAdvertisement.
type NamedCommunity struct {
	Name  string `yaml:"name" json:"name"`
	Value string `yaml:"value" json:"value"` // aa:nn or aa:nn:mm
}

// PrefixAdvertisement says which communities the prefixes inside a range are announced with.
type PrefixAdvertisement struct {
	CIDR        string   `yaml:"cidr" json:"cidr"`
	Communities []string `yaml:"communities,omitempty" json:"communities,omitempty"` // names or values
}

// CIDRBlock is a range of service addresses.
type CIDRBlock struct {
	CIDR string `yaml:"cidr,omitempty" json:"cidr,omitempty"`
}

// BGPPeer is an explicit peering (API: bgppeer.go).
type BGPPeer struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       BGPPeerSpec `yaml:"spec" json:"spec"`
}

// BGPPeerSpec is the part of a BGPPeer that is read.
type BGPPeerSpec struct {
	Node                    string    `yaml:"node,omitempty" json:"node,omitempty"`
	NodeSelector            string    `yaml:"nodeSelector,omitempty" json:"nodeSelector,omitempty"`
	PeerIP                  string    `yaml:"peerIP,omitempty" json:"peerIP,omitempty"` // address, v4:port or [v6]:port
	PeerSelector            string    `yaml:"peerSelector,omitempty" json:"peerSelector,omitempty"`
	ASNumber                ASNumber  `yaml:"asNumber,omitempty" json:"asNumber,omitempty"`
	LocalASNumber           *ASNumber `yaml:"localASNumber,omitempty" json:"localASNumber,omitempty"`
	NumAllowedLocalASNumber *int      `yaml:"numAllowedLocalASNumbers,omitempty" json:"numAllowedLocalASNumbers,omitempty"`
	KeepOriginalNextHop     bool      `yaml:"keepOriginalNextHop,omitempty" json:"keepOriginalNextHop,omitempty"`
	NextHopMode             string    `yaml:"nextHopMode,omitempty" json:"nextHopMode,omitempty"`     // Auto, Self, Keep
	SourceAddress           string    `yaml:"sourceAddress,omitempty" json:"sourceAddress,omitempty"` // UseNodeIP, None
	MaxRestartTime          *Duration `yaml:"maxRestartTime,omitempty" json:"maxRestartTime,omitempty"`
	KeepaliveTime           *Duration `yaml:"keepaliveTime,omitempty" json:"keepaliveTime,omitempty"`
	TTLSecurity             *int      `yaml:"ttlSecurity,omitempty" json:"ttlSecurity,omitempty"` // hops
	ReachableBy             string    `yaml:"reachableBy,omitempty" json:"reachableBy,omitempty"`
	Filters                 []string  `yaml:"filters,omitempty" json:"filters,omitempty"`
	Password                *Password `yaml:"password,omitempty" json:"password,omitempty"`
	ReversePeering          string    `yaml:"reversePeering,omitempty" json:"reversePeering,omitempty"` // Auto, Manual
	LocalWorkloadSelector   string    `yaml:"localWorkloadSelector,omitempty" json:"localWorkloadSelector,omitempty"`
}

// Password says where the password of a session (TCP MD5, RFC 2385) is kept.
type Password struct {
	SecretKeyRef *SecretKeyRef `yaml:"secretKeyRef,omitempty" json:"secretKeyRef,omitempty"`
}

// SecretKeyRef names one value of a Secret.
type SecretKeyRef struct {
	Name string `yaml:"name,omitempty" json:"name,omitempty"`
	Key  string `yaml:"key,omitempty" json:"key,omitempty"`
}

// FelixConfiguration holds Felix' settings; only the one named default is read (API: felixconfig.go).
type FelixConfiguration struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       FelixConfigurationSpec `yaml:"spec" json:"spec"`
}

// FelixConfigurationSpec is the part of a FelixConfiguration that is read. A nil pointer means Calico's default.
type FelixConfigurationSpec struct {
	IPIPMTU                      *int   `yaml:"ipipMTU,omitempty" json:"ipipMTU,omitempty"`       // bytes; 0 = by the parent
	VXLANMTU                     *int   `yaml:"vxlanMTU,omitempty" json:"vxlanMTU,omitempty"`     // as IPIPMTU
	VXLANMTUV6                   *int   `yaml:"vxlanMTUV6,omitempty" json:"vxlanMTUV6,omitempty"` // as IPIPMTU
	VXLANPort                    *int   `yaml:"vxlanPort,omitempty" json:"vxlanPort,omitempty"`   // UDP
	VXLANVNI                     *int   `yaml:"vxlanVNI,omitempty" json:"vxlanVNI,omitempty"`
	DeviceRouteSourceAddress     string `yaml:"deviceRouteSourceAddress,omitempty" json:"deviceRouteSourceAddress,omitempty"`
	DeviceRouteSourceAddressIPv6 string `yaml:"deviceRouteSourceAddressIPv6,omitempty" json:"deviceRouteSourceAddressIPv6,omitempty"`
	// What Felix programs, which matters beside one. Unset vxlanEnabled is by the pools.
	VXLANEnabled         *bool  `yaml:"vxlanEnabled,omitempty" json:"vxlanEnabled,omitempty"`
	IPv6Support          *bool  `yaml:"ipv6Support,omitempty" json:"ipv6Support,omitempty"`
	ProgramClusterRoutes string `yaml:"programClusterRoutes,omitempty" json:"programClusterRoutes,omitempty"`
	// MTUIfacePattern is the pattern of the interfaces whose MTU bounds that of workloads; empty = Felix' default.
	MTUIfacePattern string `yaml:"mtuIfacePattern,omitempty" json:"mtuIfacePattern,omitempty"`
}

// ConfigMap is Kubernetes' ConfigMap calico-config, of which data.calico_backend is read.
type ConfigMap struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Data       ConfigMapData `yaml:"data,omitempty" json:"data,omitempty"`
}

// ConfigMapData is the part of the ConfigMap that is read.
type ConfigMapData struct {
	CalicoBackend string `yaml:"calico_backend,omitempty" json:"calico_backend,omitempty"`
}

// Kind returns IPPool.
func (*IPPool) Kind() Kind { return KindIPPool }

// Meta returns the object's metadata.
func (o *IPPool) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns Node.
func (*Node) Kind() Kind { return KindNode }

// Meta returns the object's metadata.
func (o *Node) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns BGPConfiguration.
func (*BGPConfiguration) Kind() Kind { return KindBGPConfiguration }

// Meta returns the object's metadata.
func (o *BGPConfiguration) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns BGPPeer.
func (*BGPPeer) Kind() Kind { return KindBGPPeer }

// Meta returns the object's metadata.
func (o *BGPPeer) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns FelixConfiguration.
func (*FelixConfiguration) Kind() Kind { return KindFelixConfig }

// Meta returns the object's metadata.
func (o *FelixConfiguration) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns ConfigMap.
func (*ConfigMap) Kind() Kind { return KindConfigMap }

// Meta returns the object's metadata.
func (o *ConfigMap) Meta() *ObjectMeta { return &o.ObjectMeta }
