package kube

import (
	"github.com/caracal-net/caracal/internal/calico"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// form is one of the two API groups in which a cluster keeps Calico's resources.
type form struct {
	group, version string
}

// The forms.
var (
	classic = form{"crd.projectcalico.org", "v1"}
	native  = form{"projectcalico.org", "v3"}
)

// String returns the form as in apiVersion.
func (f form) String() string { return f.group + "/" + f.version }

// The resources that are Kubernetes' own.
var (
	nodeResource      = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	configMapResource = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	secretResource    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	serviceResource   = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	podResource       = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	sliceResource     = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
)

// watched are the kinds that every State is made of, in the order in which their errors are told. Services, EndpointSlices, Pods and
// Secrets are watched where they are asked for (demand.go).
func watched() []calico.Kind {
	return []calico.Kind{
		calico.KindNode, calico.KindIPPool, calico.KindIPAMBlock, calico.KindBlockAffinity, calico.KindBGPConfiguration,
		calico.KindBGPPeer, calico.KindBGPFilter, calico.KindFelixConfig, calico.KindConfigMap,
	}
}

// own reports whether a kind is Kubernetes' own and so the same in both forms.
func own(kind calico.Kind) bool {
	return kind == calico.KindNode || namespaced(kind) || calico.WatchedOnly(kind)
}

// namespaced reports whether objects of a kind are in a namespace. The one that is read is Options.Namespace.
func namespaced(kind calico.Kind) bool {
	return kind == calico.KindConfigMap || kind == calico.KindSecret
}

// resource returns where the objects of a kind are.
func (f form) resource(kind calico.Kind) schema.GroupVersionResource {
	r := schema.GroupVersionResource{Group: f.group, Version: f.version}
	switch kind {
	case calico.KindNode:
		return nodeResource
	case calico.KindConfigMap:
		return configMapResource
	case calico.KindSecret:
		return secretResource
	case calico.KindService:
		return serviceResource
	case calico.KindEndpointSlice:
		return sliceResource
	case calico.KindPod:
		return podResource
	case calico.KindIPPool:
		r.Resource = "ippools"
	case calico.KindBGPConfiguration:
		r.Resource = "bgpconfigurations"
	case calico.KindBGPPeer:
		r.Resource = "bgppeers"
	case calico.KindBGPFilter:
		r.Resource = "bgpfilters"
	case calico.KindFelixConfig:
		r.Resource = "felixconfigurations"
	case calico.KindIPAMBlock:
		r.Resource = "ipamblocks"
	case calico.KindBlockAffinity:
		r.Resource = "blockaffinities"
	case calico.KindIPAMHandle:
		r.Resource = "ipamhandles"
	case calico.KindIPAMConfiguration:
		r.Resource = "ipamconfigurations"
		if f == classic {
			r.Resource = "ipamconfigs"
		}
	default:
		panic("kube: no resource for kind " + string(kind)) // package calico knows a kind that this table does not
	}
	return r
}

// kindName returns the kind as it is written in the form.
func (f form) kindName(kind calico.Kind) string {
	if kind == calico.KindIPAMConfiguration && f == classic {
		return "IPAMConfig"
	}
	return string(kind)
}

// apiVersion returns the apiVersion in which a kind is written.
func (f form) apiVersion(kind calico.Kind) string {
	switch {
	case calico.WatchedOnly(kind):
		return calico.VersionOf(kind)
	case own(kind):
		return "v1"
	}
	return f.String()
}
