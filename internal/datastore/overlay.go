package datastore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// Overlay returns what a State would be after manifests were applied to it and objects deleted; it changes nothing. Manifests are YAML as
// calicoctl takes them; deletions are "BGPPeer/rack1-tor". The problems are those of the manifests; an error says that they cannot be
// understood.
func Overlay(st *cluster.State, manifests string, deletions []string) (*cluster.State, []cluster.Problem, error) {
	o := &overlay{builder: cluster.NewBuilder(), bgp: st.BGP()}
	o.copy(st.Objects())
	for _, d := range deletions {
		if err := o.drop(d); err != nil {
			return nil, nil, err
		}
	}
	for dec := yaml.NewDecoder(bytes.NewReader([]byte(manifests))); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("manifests: %w", err)
		}
		found, problems := calico.Resources(&doc)
		o.problems = append(o.problems, problems...)
		if len(found)+len(problems) == 0 {
			o.unread(&doc)
		}
		for i := range found {
			o.problems = append(o.problems, found[i].Problems...)
			word, problems := calico.Word(found[i].Object)
			o.problems = append(o.problems, problems...)
			o.set(&found[i], word)
		}
	}
	if o.taken == 0 && o.ignored == len(o.problems) && len(deletions) == 0 {
		return nil, nil, errors.New("the manifests hold no resource that routing depends on: write Calico's Node, IPPool, BGPConfiguration, BGPPeer, BGPFilter or BlockAffinity, or a Secret, Service, EndpointSlice or Pod")
	}
	o.builder.SetBGP(o.bgp)
	return o.builder.State(), o.problems, nil
}

type overlay struct {
	builder  *cluster.Builder
	bgp      cluster.BGPConfig
	problems []cluster.Problem
	taken    int
	ignored  int // documents that hold nothing we read, each of which is a problem
}

// copy takes over everything but BGP settings, which several objects make.
func (o *overlay) copy(all cluster.Objects) {
	for _, x := range all.Nodes {
		o.builder.SetNode(x)
	}
	for _, x := range all.Pools {
		o.builder.SetPool(x)
	}
	for _, x := range all.Blocks {
		o.builder.SetBlock(x)
	}
	for _, x := range all.Affinities {
		o.builder.SetAffinity(x)
	}
	for _, x := range all.Peers {
		o.builder.SetPeer(x)
	}
	for _, x := range all.Filters {
		o.builder.SetFilter(x)
	}
	for _, x := range all.Secrets {
		o.builder.SetSecret(x)
	}
	for _, x := range all.Services {
		o.builder.SetService(x)
	}
	for _, x := range all.Slices {
		o.builder.SetSlice(x)
	}
	for _, x := range all.Pods {
		o.builder.SetPod(x)
	}
	o.builder.SetFelix(all.Felix)
	o.builder.SetBackend(all.Backend)
}

func (o *overlay) set(r *calico.Resource, word any) {
	o.taken++
	switch w := word.(type) {
	case *cluster.Node:
		o.builder.SetNode(w)
	case *cluster.Pool:
		o.builder.SetPool(w)
	case *cluster.Block:
		o.builder.SetBlock(w)
	case *cluster.Affinity:
		o.builder.SetAffinity(w)
	case *cluster.BGPPeer:
		o.builder.SetPeer(w)
	case *cluster.BGPFilter:
		o.builder.SetFilter(w)
	case *cluster.Secret:
		o.builder.SetSecret(w)
	case *cluster.Service:
		o.builder.SetService(w)
	case *cluster.EndpointSlice:
		o.builder.SetSlice(w)
	case *cluster.Pod:
		o.builder.SetPod(w)
	case *cluster.FelixConfig:
		o.builder.SetFelix(*w)
	case cluster.Backend:
		o.builder.SetBackend(w)
	case *cluster.BGPConfig:
		o.setBGP(r.Name, w)
	default:
		o.taken--
	}
}

// unread notes a document that changes nothing here. Kubernetes' own Node is the one that is most likely meant to.
func (o *overlay) unread(doc *yaml.Node) {
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Metadata   struct {
			Name string `yaml:"name"`
		} `yaml:"metadata"`
	}
	if err := doc.Decode(&head); err != nil || head.Kind == "" {
		return
	}
	text := "is not read: routing does not depend on it"
	if head.Kind == string(calico.KindNode) {
		text = "is not read, for it is Kubernetes' own: write it as Calico's, with apiVersion " + calico.APIVersion + ", its labels and spec.bgp, as calicoctl prints it"
	}
	o.ignored++
	o.problems = append(o.problems, cluster.Problem{Object: head.Kind + " " + head.Metadata.Name, Field: "apiVersion", Text: head.APIVersion + " " + text})
}

// setBGP replaces the cluster's settings or those of one node, and leaves the others.
func (o *overlay) setBGP(name string, w *cluster.BGPConfig) {
	ports, advertisements := o.bgp.NodeListenPorts, o.bgp.NodeAdvertisements
	if name == calico.DefaultName {
		o.bgp = *w
		o.bgp.NodeListenPorts, o.bgp.NodeAdvertisements = ports, advertisements
		return
	}
	node := strings.TrimPrefix(name, calico.NodePrefix)
	o.bgp.NodeListenPorts, o.bgp.NodeAdvertisements = without(ports, node), without(advertisements, node)
	maps.Copy(o.bgp.NodeListenPorts, w.NodeListenPorts)
	maps.Copy(o.bgp.NodeAdvertisements, w.NodeAdvertisements)
}

// dropBGP forgets the cluster's settings or those of one node. Whether the object was there is not known of one that says nothing.
func (o *overlay) dropBGP(name string) bool {
	if name != calico.DefaultName && !strings.HasPrefix(name, calico.NodePrefix) {
		return false
	}
	none := cluster.DefaultBGP()
	o.setBGP(name, &none)
	return true
}

// without is a copy of what nodes have, but for one.
func without[V any](m map[string]V, node string) map[string]V {
	c := make(map[string]V, len(m))
	maps.Copy(c, m)
	delete(c, node)
	return c
}

func (o *overlay) drop(what string) error {
	kind, name, _ := strings.Cut(what, "/")
	gone := false
	switch calico.Kind(kind) {
	case calico.KindNode:
		gone = o.builder.DeleteNode(name)
	case calico.KindIPPool:
		gone = o.builder.DeletePool(name)
	case calico.KindService: // Service/namespace/name
		gone = o.builder.DeleteService(name)
	case calico.KindPod: // Pod/namespace/name
		gone = o.builder.DeletePod(name)
	case calico.KindSecret:
		gone = o.builder.DeleteSecret(name)
	case calico.KindBGPConfiguration:
		gone = o.dropBGP(name)
	case calico.KindBGPPeer:
		gone = o.builder.DeletePeer(name)
	case calico.KindBGPFilter:
		gone = o.builder.DeleteFilter(name)
	default:
		return fmt.Errorf("delete %q: write Node, IPPool, BGPConfiguration, BGPPeer, BGPFilter, Secret, Service or Pod, a slash and the name, as in BGPPeer/rack1-tor or Pod/default/vm", what)
	}
	if !gone {
		return fmt.Errorf("delete %q: there is no such object", what)
	}
	return nil
}
