package kube

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// domain starts the names of Calico's annotations and labels.
const domain = "projectcalico.org/"

// Annotations of a Node besides those of nodeFields (libcalico-go: backend/k8s/resources/node.go).
const (
	annotationASN = domain + "ASNumber"
	// annotationLabels holds, as JSON, labels that the node has for Calico and not for Kubernetes.
	annotationLabels = domain + "labels"
	// annotationInterfaces holds spec.interfaces as JSON.
	annotationInterfaces = domain + "Interfaces"
)

// nodeField is a text in a Calico Node that is an annotation of the Kubernetes Node.
type nodeField struct {
	annotation string
	field      string // in the Calico Node, as problems name it
	at         func(*calico.Node) *string
}

// The annotations with addresses, which we write.
const (
	annotationAddr4  = domain + "IPv4Address"
	annotationAddr6  = domain + "IPv6Address"
	annotationIPIP   = domain + "IPv4IPIPTunnelAddr"
	annotationVXLAN4 = domain + "IPv4VXLANTunnelAddr"
	annotationVXLAN6 = domain + "IPv6VXLANTunnelAddr"
)

// nodeFields returns the table. The Node must have a spec.bgp.
func nodeFields() []nodeField {
	return []nodeField{
		{annotationAddr4, "spec.bgp.ipv4Address", func(n *calico.Node) *string { return &n.Spec.BGP.IPv4Address }},
		{annotationAddr6, "spec.bgp.ipv6Address", func(n *calico.Node) *string { return &n.Spec.BGP.IPv6Address }},
		{annotationIPIP, "spec.bgp.ipv4IPIPTunnelAddr", func(n *calico.Node) *string { return &n.Spec.BGP.IPv4IPIPTunnelAddr }},
		{annotationVXLAN4, "spec.ipv4VXLANTunnelAddr", func(n *calico.Node) *string { return &n.Spec.IPv4VXLANTunnelAddr }},
		{domain + "VXLANTunnelMACAddr", "spec.vxlanTunnelMACAddr", func(n *calico.Node) *string { return &n.Spec.VXLANTunnelMACAddr }},
		{annotationVXLAN6, "spec.ipv6VXLANTunnelAddr", func(n *calico.Node) *string { return &n.Spec.IPv6VXLANTunnelAddr }},
		{domain + "VXLANTunnelMACAddrV6", "spec.vxlanTunnelMACAddrV6", func(n *calico.Node) *string { return &n.Spec.VXLANTunnelMACAddrV6 }},
		{domain + "RouteReflectorClusterID", "spec.bgp.routeReflectorClusterID", func(n *calico.Node) *string { return &n.Spec.BGP.RouteReflectorClusterID }},
	}
}

// readNode makes Calico's Node of the metadata of Kubernetes'.
func readNode(m *metav1.ObjectMeta) (*calico.Node, []cluster.Problem) {
	n := &calico.Node{ObjectMeta: plainMeta(m)}
	n.Spec.BGP = &calico.NodeBGPSpec{}
	for _, f := range nodeFields() {
		*f.at(n) = m.Annotations[f.annotation]
	}
	var problems []cluster.Problem
	wrong := func(annotation, text string) {
		problems = append(problems, cluster.Problem{Object: calico.ObjectName(calico.KindNode, m.Name), Field: annotationField(annotation), Text: text})
	}
	if s, ok := m.Annotations[annotationASN]; ok && s != "" {
		asn, err := calico.ParseASNumber(s)
		if err != nil {
			wrong(annotationASN, err.Error())
		} else {
			n.Spec.BGP.ASNumber = &asn
		}
	}
	if *n.Spec.BGP == (calico.NodeBGPSpec{}) {
		n.Spec.BGP = nil
	}
	if s, ok := m.Annotations[annotationInterfaces]; ok {
		_ = json.Unmarshal([]byte(s), &n.Spec.Interfaces) // nothing is routed on it; as in Calico, what is wrong is as none
	}
	if s, ok := m.Annotations[annotationLabels]; ok {
		var more map[string]string
		if err := json.Unmarshal([]byte(s), &more); err != nil {
			wrong(annotationLabels, "is not a JSON object of strings: remove the annotation, or mend it with calicoctl")
		}
		n.Labels = union(more, n.Labels) // Kubernetes' own prevail, as in Calico
	}
	for a := range n.Annotations {
		if strings.HasPrefix(a, domain) {
			delete(n.Annotations, a)
		}
	}
	if len(n.Annotations) == 0 {
		n.Annotations = nil
	}
	return n, problems
}

func annotationField(annotation string) string { return "metadata.annotations[" + annotation + "]" }

// nodeWord converts a node and names the annotation where something is wrong.
func nodeWord(m *metav1.ObjectMeta) (any, []cluster.Problem) {
	n, problems := readNode(m)
	word, more := calico.Word(n)
	for _, p := range more {
		for _, f := range nodeFields() {
			if f.field == p.Field {
				p.Field = annotationField(f.annotation)
			}
		}
		problems = append(problems, p)
	}
	return word, problems
}

// writeNode puts what Calico's Node says into the metadata of Kubernetes'.
func writeNode(labels, annotations map[string]string, n *calico.Node) (map[string]string, map[string]string) {
	next := maps.Clone(n.Annotations)
	if next == nil {
		next = map[string]string{}
	}
	for a, v := range annotations {
		if strings.HasPrefix(a, domain) {
			next[a] = v
		}
	}
	n = calico.Clone(n).(*calico.Node)
	if n.Spec.BGP == nil {
		n.Spec.BGP = &calico.NodeBGPSpec{}
	}
	put := func(annotation, value string) {
		if value == "" {
			delete(next, annotation)
			return
		}
		next[annotation] = value
	}
	for _, f := range nodeFields() {
		put(f.annotation, *f.at(n))
	}
	asn := ""
	if n.Spec.BGP.ASNumber != nil {
		asn = strconv.FormatUint(uint64(*n.Spec.BGP.ASNumber), 10)
	}
	put(annotationASN, asn)
	put(annotationInterfaces, interfacesText(n.Spec.Interfaces))
	// Labels that came from Calico's annotation stay there.
	var calicoOnly map[string]string
	_ = json.Unmarshal([]byte(annotations[annotationLabels]), &calicoOnly) // readNode has told
	own := map[string]string{}
	for k, v := range n.Labels {
		_, there := labels[k]
		if only, is := calicoOnly[k]; there || !is || only != v {
			own[k] = v
		}
	}
	return own, next
}

// PatchNode changes annotations of a Node and nothing else: not the whole object, as somebody else may be writing to it at
// the same time. It is sent to the subresource status because that is what Calico's role, and ours, allow.
func (s *Store) PatchNode(ctx context.Context, name string, patch datastore.NodePatch) error {
	k := datastore.Key{Kind: calico.KindNode, Name: name}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	annotations := annotationsOf(&patch)
	c := s.metas.Resource(nodeResource)
	if len(annotations) == 0 {
		if _, err := c.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return fault("patch", k, err)
		}
		return nil
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fault("patch", k, err)
	}
	if _, err := c.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
		return fault("patch", k, err)
	}
	return nil
}

// annotationsOf returns what a patch sets; nil removes an annotation (RFC 7396).
func annotationsOf(p *datastore.NodePatch) map[string]any {
	set := map[string]any{}
	put := func(annotation, value string) {
		set[annotation] = value
		if value == "" {
			set[annotation] = nil
		}
	}
	for a, addr := range map[string]*netip.Addr{annotationIPIP: p.IPIPAddr, annotationVXLAN4: p.VXLANAddr4, annotationVXLAN6: p.VXLANAddr6} {
		if addr != nil {
			put(a, validText(*addr))
		}
	}
	for a, prefix := range map[string]*netip.Prefix{annotationAddr4: p.Addr4, annotationAddr6: p.Addr6} {
		if prefix != nil {
			put(a, validText(*prefix))
		}
	}
	if p.ASN != nil {
		text := ""
		if *p.ASN != 0 {
			text = strconv.FormatUint(uint64(*p.ASN), 10)
		}
		put(annotationASN, text)
	}
	if p.Interfaces != nil {
		put(annotationInterfaces, interfacesText(*p.Interfaces))
	}
	if p.Leaving != nil {
		put(calico.AnnotationLeaving, map[bool]string{true: "true"}[*p.Leaving])
	}
	return set
}

// validText is how an address or a prefix is written: nothing for none.
func validText(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func interfacesText(list []calico.NodeInterface) string {
	if len(list) == 0 {
		return ""
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic("kube: encode interfaces: " + err.Error()) // strings only
	}
	return string(text)
}

// union returns the entries of both maps; those of the second prevail. nil for none.
func union(a, b map[string]string) map[string]string {
	if len(a) == 0 {
		return b
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
