package calico

// Groups of Calico's API, as they appear in apiVersion.
const (
	// APIVersion is what is written.
	APIVersion = "projectcalico.org/v3"
	// CRDVersion is the older form in which kubectl shows Calico's resources.
	CRDVersion = "crd.projectcalico.org/v1"
	// CoreVersion is the apiVersion of Kubernetes' own ConfigMap and List.
	CoreVersion = "v1"
	// DiscoveryVersion is the apiVersion of Kubernetes' EndpointSlice.
	DiscoveryVersion = "discovery.k8s.io/v1"
)

// Names of the resources of which only one is read.
const (
	// DefaultName is the name of the cluster-wide BGPConfiguration, FelixConfiguration and IPAMConfiguration.
	DefaultName = "default"
	// NodePrefix starts the name of a BGPConfiguration of one node: node.<name>.
	NodePrefix = "node."
	// ConfigMapName is the name of the one ConfigMap that is read.
	ConfigMapName = "calico-config"
)

// Kinds returns every kind that is read, in a fixed order.
func Kinds() []Kind {
	return []Kind{
		KindIPPool, KindNode, KindBGPConfiguration, KindBGPPeer, KindFelixConfig,
		KindIPAMBlock, KindBlockAffinity, KindIPAMHandle, KindIPAMConfiguration, KindConfigMap,
		KindBGPFilter, KindSecret, KindService, KindEndpointSlice, KindPod,
	}
}

// WatchedOnly reports whether objects of a kind are read by watching and in no other way: those that live in namespaces of their users.
// Their Name is namespace and name, "default/web".
func WatchedOnly(kind Kind) bool {
	return kind == KindService || kind == KindEndpointSlice || kind == KindPod
}

// New returns an empty object of a kind, or false if the kind is not one that is read.
func New(kind Kind) (Object, bool) {
	switch kind {
	case KindIPPool:
		return &IPPool{}, true
	case KindNode:
		return &Node{}, true
	case KindBGPConfiguration:
		return &BGPConfiguration{}, true
	case KindBGPPeer:
		return &BGPPeer{}, true
	case KindFelixConfig:
		return &FelixConfiguration{}, true
	case KindIPAMBlock:
		return &IPAMBlock{}, true
	case KindBlockAffinity:
		return &BlockAffinity{}, true
	case KindIPAMHandle:
		return &IPAMHandle{}, true
	case KindIPAMConfiguration:
		return &IPAMConfiguration{}, true
	case KindConfigMap:
		return &ConfigMap{}, true
	case KindBGPFilter:
		return &BGPFilter{}, true
	case KindSecret:
		return &Secret{}, true
	case KindService:
		return &Service{}, true
	case KindEndpointSlice:
		return &EndpointSlice{}, true
	case KindPod:
		return &Pod{}, true
	}
	return nil, false
}

// VersionOf returns the apiVersion in which a kind is written.
func VersionOf(kind Kind) string {
	switch kind {
	case KindConfigMap, KindSecret, KindService, KindPod:
		return CoreVersion
	case KindEndpointSlice:
		return DiscoveryVersion
	}
	return APIVersion
}
