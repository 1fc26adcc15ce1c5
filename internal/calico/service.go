package calico

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unique"

	"github.com/caracal-net/caracal/internal/cluster"
)

// LabelService is the label of an EndpointSlice that names its Service (Kubernetes: discovery.k8s.io/v1).
const LabelService = "kubernetes.io/service-name"

// defaultNamespace is that of an object whose manifest names none.
const defaultNamespace = "default"

// FullName joins the namespace and the name of an object.
func FullName(namespace, name string) string {
	if namespace == "" {
		namespace = defaultNamespace
	}
	return namespace + "/" + name
}

// Service is the part of Kubernetes' Service that addresses are announced by.
type Service struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       ServiceSpec   `yaml:"spec" json:"spec"`
	Status     ServiceStatus `yaml:"status,omitempty" json:"status"`
}

// ServiceSpec is the part of a Service's spec that is read.
type ServiceSpec struct {
	Type                  string   `yaml:"type,omitempty" json:"type,omitempty"` // ClusterIP, NodePort, LoadBalancer, ExternalName
	ClusterIP             string   `yaml:"clusterIP,omitempty" json:"clusterIP,omitempty"`
	ClusterIPs            []string `yaml:"clusterIPs,omitempty" json:"clusterIPs,omitempty"`
	ExternalIPs           []string `yaml:"externalIPs,omitempty" json:"externalIPs,omitempty"`
	ExternalTrafficPolicy string   `yaml:"externalTrafficPolicy,omitempty" json:"externalTrafficPolicy,omitempty"` // Cluster, Local
	InternalTrafficPolicy string   `yaml:"internalTrafficPolicy,omitempty" json:"internalTrafficPolicy,omitempty"` // Cluster, Local
	HealthCheckNodePort   int      `yaml:"healthCheckNodePort,omitempty" json:"healthCheckNodePort,omitempty"`
}

// ServiceStatus is the part of a Service's status that is read.
type ServiceStatus struct {
	LoadBalancer LoadBalancerStatus `yaml:"loadBalancer,omitempty" json:"loadBalancer"`
}

// LoadBalancerStatus holds the addresses that a load balancer has given.
type LoadBalancerStatus struct {
	Ingress []LoadBalancerIngress `yaml:"ingress,omitempty" json:"ingress,omitempty"`
}

// LoadBalancerIngress is one of them. With ipMode Proxy the nodes are not meant to handle packets to the address.
type LoadBalancerIngress struct {
	IP     string `yaml:"ip,omitempty" json:"ip,omitempty"`
	IPMode string `yaml:"ipMode,omitempty" json:"ipMode,omitempty"` // VIP, Proxy
}

// Kind returns Service.
func (*Service) Kind() Kind { return KindService }

// Meta returns the object's metadata.
func (o *Service) Meta() *ObjectMeta { return &o.ObjectMeta }

// Service converts the Service; nil for one without addresses of its own. What Kubernetes would not have stored is left out, as nothing
// of ours depends on it.
func (o *Service) Service() (*cluster.Service, []cluster.Problem) {
	c := newCheck(o)
	s := &o.Spec
	if s.Type == "ExternalName" || s.ClusterIP == "" && len(s.ClusterIPs) == 0 || s.ClusterIP == "None" {
		return nil, nil
	}
	out := &cluster.Service{
		Name: o.Name,
		// Who can be reached from outside has the policy: external addresses do for that, whatever the type (Kubernetes: service.ExternallyAccessible).
		Local:         s.ExternalTrafficPolicy == "Local" && (s.Type == "NodePort" || s.Type == "LoadBalancer" || len(s.ExternalIPs) > 0),
		InternalLocal: s.InternalTrafficPolicy == "Local",
		HealthPort:    uint16(c.number("spec.healthCheckNodePort", &s.HealthCheckNodePort, 0, 0, maxPort)),
	}
	clusterIPs := s.ClusterIPs
	if len(clusterIPs) == 0 { // before Kubernetes 1.20
		clusterIPs = []string{s.ClusterIP}
	}
	out.ClusterIPs = c.addrs("spec.clusterIPs", clusterIPs)
	out.ExternalIPs = c.addrs("spec.externalIPs", s.ExternalIPs)
	if s.Type == "LoadBalancer" {
		var given []string
		for _, in := range o.Status.LoadBalancer.Ingress {
			if in.IP != "" && in.IPMode != "Proxy" {
				given = append(given, in.IP)
			}
		}
		out.LoadBalancerIPs = c.addrs("status.loadBalancer.ingress", given)
	}
	if !c.ok() {
		return nil, c.problems
	}
	return out, nil
}

// addrs reads a list of addresses of either family; sorted, each once.
func (c *check) addrs(field string, list []string) (out []netip.Addr) {
	for i, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			c.add(fmt.Sprintf("%s[%d]", field, i), "%q is not an address: write one as in 192.0.2.7 or 2001:db8::7", s)
			continue
		}
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// EndpointSlice is the part of Kubernetes' EndpointSlice that is read.
type EndpointSlice struct {
	ObjectMeta  `yaml:"metadata" json:"metadata"`
	AddressType string          `yaml:"addressType" json:"addressType"` // IPv4, IPv6, FQDN
	Endpoints   []SliceEndpoint `yaml:"endpoints,omitempty" json:"endpoints"`
}

// SliceEndpoint is one endpoint. Its addresses are not read: who is reached there is the service proxy's business.
type SliceEndpoint struct {
	NodeName   string             `yaml:"nodeName,omitempty" json:"nodeName,omitempty"`
	Conditions EndpointConditions `yaml:"conditions,omitempty" json:"conditions"`
}

// EndpointConditions are those that are read. Ready unset means ready.
type EndpointConditions struct {
	Ready *bool `yaml:"ready,omitempty" json:"ready,omitempty"`
}

// Kind returns EndpointSlice.
func (*EndpointSlice) Kind() Kind { return KindEndpointSlice }

// Meta returns the object's metadata.
func (o *EndpointSlice) Meta() *ObjectMeta { return &o.ObjectMeta }

// Slice converts the EndpointSlice; nil for one of no Service, or of host names.
func (o *EndpointSlice) Slice() (*cluster.EndpointSlice, []cluster.Problem) {
	families := map[string]cluster.Family{"IPv4": cluster.IPv4, "IPv6": cluster.IPv6}
	family, service := families[o.AddressType], o.Labels[LabelService]
	if family == 0 || service == "" {
		return nil, nil
	}
	namespace, _, _ := strings.Cut(o.Name, "/")
	out := &cluster.EndpointSlice{Name: o.Name, Service: FullName(namespace, service), Family: family}
	for _, e := range o.Endpoints {
		if e.Conditions.Ready == nil || *e.Conditions.Ready {
			out.Ready = append(out.Ready, unique.Make(e.NodeName).Value()) // one copy of a name for all slices
		}
	}
	slices.Sort(out.Ready)
	out.Ready = slices.Clip(slices.Compact(out.Ready))
	return out, nil
}

// Pod is the part of Kubernetes' Pod that is read.
type Pod struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       PodSpec   `yaml:"spec" json:"spec"`
	Status     PodStatus `yaml:"status,omitempty" json:"status"`
}

// PodSpec is the part of a Pod's spec that is read.
type PodSpec struct {
	NodeName    string `yaml:"nodeName,omitempty" json:"nodeName,omitempty"`
	HostNetwork bool   `yaml:"hostNetwork,omitempty" json:"hostNetwork,omitempty"`
	// ServiceAccountName is for selectors of workloads.
	ServiceAccountName string `yaml:"serviceAccountName,omitempty" json:"serviceAccountName,omitempty"`
}

// PodStatus is the part of a Pod's status that is read.
type PodStatus struct {
	Phase  string  `yaml:"phase,omitempty" json:"phase,omitempty"` // Pending, Running, Succeeded, Failed, Unknown
	PodIP  string  `yaml:"podIP,omitempty" json:"podIP,omitempty"`
	PodIPs []PodIP `yaml:"podIPs,omitempty" json:"podIPs,omitempty"`
}

// PodIP is one address of a Pod.
type PodIP struct {
	IP string `yaml:"ip,omitempty" json:"ip,omitempty"`
}

// annotationPodIPs is where Calico's CNI plugin writes a Pod's addresses, with prefix lengths and commas, before the kubelet tells them. It is
// emptied when the Pod's network ends, which the kubelet's status does not show (libcalico-go: conversion/constants.go).
const (
	annotationPodIP  = "cni.projectcalico.org/podIP"
	annotationPodIPs = "cni.projectcalico.org/podIPs"
)

// Kind returns Pod.
func (*Pod) Kind() Kind { return KindPod }

// Meta returns the object's metadata.
func (o *Pod) Meta() *ObjectMeta { return &o.ObjectMeta }

// Pod converts the Pod; nil for one of the host's network, without an address, or whose containers have ended, so that its
// addresses may be another's by now.
func (o *Pod) Pod() (*cluster.Pod, []cluster.Problem) {
	c := newCheck(o)
	out := &cluster.Pod{Name: o.Name, Node: unique.Make(o.Spec.NodeName).Value(), Labels: o.workloadLabels()}
	if o.Spec.HostNetwork || o.Status.Phase == "Succeeded" || o.Status.Phase == "Failed" {
		return nil, nil
	}
	field, list := o.addresses()
	out.Addrs = c.addrs(field, list)
	if !c.ok() {
		return nil, c.problems
	}
	if len(out.Addrs) == 0 {
		return nil, nil
	}
	return out, nil
}

// workloadLabels are the labels that Calico's selectors of workloads see (libcalico-go: conversion/workload_endpoint_default.go), without those of the
// namespace and of the service account (pcns., pcsa.).
func (o *Pod) workloadLabels() map[string]string {
	labels := make(map[string]string, len(o.Labels)+3)
	maps.Copy(labels, o.Labels)
	namespace, _, _ := strings.Cut(o.Name, "/")
	labels["projectcalico.org/namespace"], labels["projectcalico.org/orchestrator"] = namespace, "k8s"
	if s := o.Spec.ServiceAccountName; s != "" {
		labels["projectcalico.org/serviceaccount"] = s
	}
	return labels
}

// addresses returns the Pod's addresses and the field they are in. The kubelet's word comes first, then the CNI plugin's, which is
// there earlier (libcalico-go: conversion.GetPodIPs).
func (o *Pod) addresses() (field string, list []string) {
	last := o.Status.PodIP
	for _, ip := range o.Status.PodIPs {
		if ip.IP != "" {
			list = append(list, ip.IP)
		}
	}
	annotated, written := o.Annotations[annotationPodIP]
	switch {
	case o.DeletionTimestamp != nil && written && annotated == "": // its network has ended, before the Pod
		return "", nil
	case len(list) > 0:
		return "status.podIPs", list
	case last != "":
		return "status.podIP", []string{last}
	}
	if annotated == "" || o.Annotations[annotationPodIPs] != "" {
		annotated = o.Annotations[annotationPodIPs]
	}
	for ip := range strings.SplitSeq(annotated, ",") {
		if ip, _, _ = strings.Cut(strings.TrimSpace(ip), "/"); ip != "" {
			list = append(list, ip)
		}
	}
	return "metadata.annotations[" + annotationPodIPs + "]", list
}
