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
		for i := range found {
			o.problems = append(o.problems, found[i].Problems...)
			word, problems := calico.Word(found[i].Object)
			o.problems = append(o.problems, problems...)
			o.set(&found[i], word)
		}
	}
	if o.taken == 0 && len(o.problems) == 0 && len(deletions) == 0 {
		return nil, nil, errors.New("the manifests hold no resource that routing depends on: write IPPool, Node, BGPConfiguration, BGPPeer, BGPFilter or BlockAffinity")
	}
	o.builder.SetBGP(o.bgp)
	return o.builder.State(), o.problems, nil
}

type overlay struct {
	builder  *cluster.Builder
	bgp      cluster.BGPConfig
	problems []cluster.Problem
	taken    int
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
	case calico.KindBGPPeer:
		gone = o.builder.DeletePeer(name)
	case calico.KindBGPFilter:
		gone = o.builder.DeleteFilter(name)
	default:
		return fmt.Errorf("delete %q: write Node, IPPool, BGPPeer or BGPFilter, a slash and the name, as in BGPPeer/rack1-tor", what)
	}
	if !gone {
		return fmt.Errorf("delete %q: there is no such object", what)
	}
	return nil
}
