package calico

import "time"

// Kind is a resource kind of Calico's API.
type Kind string

// The kinds that are read or written.
const (
	KindIPPool            Kind = "IPPool"
	KindNode              Kind = "Node"
	KindBGPConfiguration  Kind = "BGPConfiguration"
	KindBGPPeer           Kind = "BGPPeer"
	KindFelixConfig       Kind = "FelixConfiguration"
	KindIPAMBlock         Kind = "IPAMBlock"
	KindBlockAffinity     Kind = "BlockAffinity"
	KindIPAMHandle        Kind = "IPAMHandle"
	KindIPAMConfiguration Kind = "IPAMConfiguration"
	// KindConfigMap is the core ConfigMap calico-config, read for calico_backend only.
	KindConfigMap Kind = "ConfigMap"
	// KindBGPFilter is the kind of BGP filters.
	KindBGPFilter Kind = "BGPFilter"
	// KindSecret is the core Secret, read for the passwords of BGP sessions.
	KindSecret Kind = "Secret"
	// The kinds that are only watched, in every namespace; see WatchedOnly.
	KindService       Kind = "Service"
	KindEndpointSlice Kind = "EndpointSlice"
	KindPod           Kind = "Pod"
)

// ObjectMeta is the part of Kubernetes' ObjectMeta that is used.
type ObjectMeta struct {
	Name              string            `yaml:"name" json:"name"`
	UID               string            `yaml:"uid,omitempty" json:"uid,omitempty"`
	ResourceVersion   string            `yaml:"resourceVersion,omitempty" json:"resourceVersion,omitempty"`
	CreationTimestamp *time.Time        `yaml:"creationTimestamp,omitempty" json:"creationTimestamp,omitempty"`
	DeletionTimestamp *time.Time        `yaml:"deletionTimestamp,omitempty" json:"deletionTimestamp,omitempty"`
	Labels            map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	Annotations       map[string]string `yaml:"annotations,omitempty" json:"annotations,omitempty"`
}

// Object is one resource of any kind: *IPPool, *Node, *IPAMBlock...
type Object interface {
	Kind() Kind
	Meta() *ObjectMeta
}

// IPAMBlock is Calico's IPAMBlock (reference: MODEL/block.go).
type IPAMBlock struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       IPAMBlockSpec `yaml:"spec" json:"spec"`
}

// IPAMBlockSpec holds an IPAM block's addresses.
type IPAMBlockSpec struct {
	CIDR                        string            `yaml:"cidr" json:"cidr"`
	Affinity                    *string           `yaml:"affinity,omitempty" json:"affinity,omitempty"`
	AffinityClaimTime           *time.Time        `yaml:"affinityClaimTime,omitempty" json:"affinityClaimTime,omitempty"`
	Allocations                 []*int            `yaml:"allocations" json:"allocations"`
	Unallocated                 []int             `yaml:"unallocated" json:"unallocated"`
	Attributes                  []AllocationAttrs `yaml:"attributes" json:"attributes"`
	SequenceNumber              uint64            `yaml:"sequenceNumber" json:"sequenceNumber"`
	SequenceNumberForAllocation map[string]uint64 `yaml:"sequenceNumberForAllocation,omitempty" json:"sequenceNumberForAllocation,omitempty"`
	Deleted                     bool              `yaml:"deleted,omitempty" json:"deleted,omitempty"`
	StrictAffinity              bool              `yaml:"strictAffinity" json:"strictAffinity"`
}

// AllocationAttrs says who holds the addresses that refer to it.
type AllocationAttrs struct {
	HandleID            *string           `yaml:"handle_id,omitempty" json:"handle_id,omitempty"`
	Secondary           map[string]string `yaml:"secondary,omitempty" json:"secondary,omitempty"`
	AlternateOwnerAttrs map[string]string `yaml:"alternateOwnerAttrs,omitempty" json:"alternateOwnerAttrs,omitempty"`
	ReleasedAt          *time.Time        `yaml:"releasedAt,omitempty" json:"releasedAt,omitempty"`
}

// BlockAffinity is a host's claim on a block (reference: MODEL/block_affinity.go).
type BlockAffinity struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       BlockAffinitySpec `yaml:"spec" json:"spec"`
}

// BlockAffinitySpec is the content of a BlockAffinity. Deleted is the string "true" or "false" in
// crd.projectcalico.org/v1 and a boolean in projectcalico.org/v3; both are read.
type BlockAffinitySpec struct {
	State   string     `yaml:"state" json:"state"`
	Node    string     `yaml:"node" json:"node"`
	Type    string     `yaml:"type,omitempty" json:"type,omitempty"`
	CIDR    string     `yaml:"cidr" json:"cidr"`
	Deleted StringBool `yaml:"deleted" json:"deleted"`
}

// StringBool is a boolean that is read from a boolean or from a string.
type StringBool bool

// IPAMHandle counts the addresses held under one handle (reference: section 3.4).
type IPAMHandle struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       IPAMHandleSpec `yaml:"spec" json:"spec"`
}

// IPAMHandleSpec is the content of an IPAMHandle.
type IPAMHandleSpec struct {
	HandleID string         `yaml:"handleID" json:"handleID"`
	Block    map[string]int `yaml:"block" json:"block"`
	Deleted  bool           `yaml:"deleted,omitempty" json:"deleted,omitempty"`
}

// IPAMConfiguration is the cluster's IPAM settings, named "default".
type IPAMConfiguration struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       IPAMConfigurationSpec `yaml:"spec" json:"spec"`
}

// IPAMConfigurationSpec is the content of an IPAMConfiguration.
type IPAMConfigurationSpec struct {
	StrictAffinity     bool  `yaml:"strictAffinity" json:"strictAffinity"`
	AutoAllocateBlocks *bool `yaml:"autoAllocateBlocks,omitempty" json:"autoAllocateBlocks,omitempty"`
	MaxBlocksPerHost   int   `yaml:"maxBlocksPerHost,omitempty" json:"maxBlocksPerHost,omitempty"`
	IPCooldownSeconds  int   `yaml:"ipCooldownSeconds,omitempty" json:"ipCooldownSeconds,omitempty"`
}

// Kind returns IPAMBlock.
func (*IPAMBlock) Kind() Kind { return KindIPAMBlock }

// Meta returns the object's metadata.
func (o *IPAMBlock) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns BlockAffinity.
func (*BlockAffinity) Kind() Kind { return KindBlockAffinity }

// Meta returns the object's metadata.
func (o *BlockAffinity) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns IPAMHandle.
func (*IPAMHandle) Kind() Kind { return KindIPAMHandle }

// Meta returns the object's metadata.
func (o *IPAMHandle) Meta() *ObjectMeta { return &o.ObjectMeta }

// Kind returns IPAMConfiguration.
func (*IPAMConfiguration) Kind() Kind { return KindIPAMConfiguration }

// Meta returns the object's metadata.
func (o *IPAMConfiguration) Meta() *ObjectMeta { return &o.ObjectMeta }
