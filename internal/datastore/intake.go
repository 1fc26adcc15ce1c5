package datastore

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// Key names an object.
type Key struct {
	Kind calico.Kind
	Name string
}

// String returns the form in which problems and errors name an object: "IPPool default-ipv4-ippool".
func (k Key) String() string { return calico.ObjectName(k.Kind, k.Name) }

// Compare orders keys by kind, then name.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(string(k.Kind), string(o.Kind)), strings.Compare(k.Name, o.Name))
}

// Intake makes States from the objects of a datastore as they come and go. It belongs to one goroutine.
type Intake struct {
	builder *cluster.Builder
	objects map[Key]object
	// bgp holds the BGP settings, which several objects make together.
	bgp        map[Key]*cluster.BGPConfig
	clusterIPs []netip.Prefix // in the place of its serviceClusterIPs, if there are any
	stray      []cluster.Problem
	wrong      map[Key][]cluster.Problem
	dirty      bool // the list of problems is to be made anew
}

// object is what is in force of one object.
type object struct {
	word any
	good bool // word came without a problem
}

// NewIntake returns an Intake of an empty datastore.
func NewIntake() *Intake {
	return &Intake{
		builder: cluster.NewBuilder(),
		objects: map[Key]object{}, bgp: map[Key]*cluster.BGPConfig{}, wrong: map[Key][]cluster.Problem{},
	}
}

// AdvertiseClusterIPs puts ranges in the place of serviceClusterIPs, whatever a BGPConfiguration says (CALICO_ADVERTISE_CLUSTER_IPS); none changes
// nothing.
func (in *Intake) AdvertiseClusterIPs(ranges []netip.Prefix) {
	in.clusterIPs = ranges
	in.setBGP(Key{calico.KindBGPConfiguration, calico.DefaultName}, nil)
}

// Set tells what an object says now: its word (calico.Word) and what is wrong with it.
func (in *Intake) Set(k Key, word any, problems []cluster.Problem) {
	in.note(k, problems)
	was := in.objects[k]
	if len(problems) > 0 && was.good {
		return // the good one stays in force
	}
	in.objects[k] = object{word: word, good: len(problems) == 0 && word != nil}
	in.replace(k, was.word, word)
}

// Delete tells that an object is gone.
func (in *Intake) Delete(k Key) {
	in.note(k, nil)
	in.replace(k, in.objects[k].word, nil)
	delete(in.objects, k)
}

// Stray replaces the problems that belong to no object of the Intake.
func (in *Intake) Stray(problems []cluster.Problem) {
	if !slices.Equal(in.stray, problems) {
		in.stray, in.dirty = slices.Clone(problems), true
	}
}

// State returns the snapshot; the same one again if nothing changed.
func (in *Intake) State() *cluster.State {
	if in.dirty {
		all := slices.Clone(in.stray)
		for _, p := range in.wrong {
			all = append(all, p...)
		}
		in.builder.SetProblems(all)
		in.dirty = false
	}
	return in.builder.State()
}

func (in *Intake) note(k Key, problems []cluster.Problem) {
	if slices.Equal(in.wrong[k], problems) {
		return
	}
	in.dirty = true
	if len(problems) == 0 {
		delete(in.wrong, k)
		return
	}
	in.wrong[k] = slices.Clone(problems)
}

// replace hands the difference between two words of one object to the Builder.
func (in *Intake) replace(k Key, was, now any) {
	switch k.Kind {
	case calico.KindBGPConfiguration:
		in.setBGP(k, now)
		return
	case calico.KindFelixConfig, calico.KindConfigMap:
		in.setSingle(k.Kind, was, now)
		return
	}
	if was != nil && (now == nil || !sameKey(was, now)) {
		in.drop(was)
	}
	switch w := now.(type) {
	case *cluster.Node:
		in.builder.SetNode(w)
	case *cluster.Pool:
		in.builder.SetPool(w)
	case *cluster.Block:
		in.builder.SetBlock(w)
	case *cluster.Affinity:
		in.builder.SetAffinity(w)
	case *cluster.BGPPeer:
		in.builder.SetPeer(w)
	case *cluster.BGPFilter:
		in.builder.SetFilter(w)
	case *cluster.Secret:
		in.builder.SetSecret(w)
	case *cluster.Service:
		in.builder.SetService(w)
	case *cluster.EndpointSlice:
		in.builder.SetSlice(w)
	case *cluster.Pod:
		in.builder.SetPod(w)
	}
}

// sameKey reports whether the Builder keeps two words in one place. Nodes, pools and peerings are kept by the name of
// their object, which does not change.
func sameKey(a, b any) bool {
	switch a := a.(type) {
	case *cluster.Block:
		return a.CIDR == b.(*cluster.Block).CIDR
	case *cluster.Affinity:
		b := b.(*cluster.Affinity)
		return a.CIDR == b.CIDR && a.Node == b.Node
	case *cluster.EndpointSlice:
		return a.Service == b.(*cluster.EndpointSlice).Service
	}
	return true
}

func (in *Intake) drop(word any) {
	switch w := word.(type) {
	case *cluster.Node:
		in.builder.DeleteNode(w.Name)
	case *cluster.Pool:
		in.builder.DeletePool(w.Name)
	case *cluster.Block:
		in.builder.DeleteBlock(w.CIDR)
	case *cluster.Affinity:
		in.builder.DeleteAffinity(w.Node, w.CIDR)
	case *cluster.BGPPeer:
		in.builder.DeletePeer(w.Name)
	case *cluster.BGPFilter:
		in.builder.DeleteFilter(w.Name)
	case *cluster.Secret:
		in.builder.DeleteSecret(w.Name)
	case *cluster.Service:
		in.builder.DeleteService(w.Name)
	case *cluster.EndpointSlice:
		in.builder.DeleteSlice(w.Service, w.Name)
	case *cluster.Pod:
		in.builder.DeletePod(w.Name)
	}
}

// setSingle sets what one object alone says. Objects of these kinds that say nothing have no word.
func (in *Intake) setSingle(kind calico.Kind, was, now any) {
	if was == nil && now == nil {
		return
	}
	if kind == calico.KindConfigMap {
		b, _ := now.(cluster.Backend)
		in.builder.SetBackend(b)
		return
	}
	felix := cluster.DefaultFelix()
	if w, ok := now.(*cluster.FelixConfig); ok {
		felix = *w
	}
	in.builder.SetFelix(felix)
}

// setBGP puts the cluster's settings and those of single nodes together.
func (in *Intake) setBGP(k Key, now any) {
	delete(in.bgp, k)
	if w, ok := now.(*cluster.BGPConfig); ok {
		in.bgp[k] = w
	}
	conf := cluster.DefaultBGP()
	if w := in.bgp[Key{calico.KindBGPConfiguration, calico.DefaultName}]; w != nil {
		conf = *w
	}
	if len(in.clusterIPs) > 0 {
		conf.ServiceClusterIPs = in.clusterIPs
	}
	conf.NodeListenPorts, conf.NodeAdvertisements = nil, nil
	for _, w := range in.bgp {
		conf.NodeListenPorts = joined(conf.NodeListenPorts, w.NodeListenPorts)
		conf.NodeAdvertisements = joined(conf.NodeAdvertisements, w.NodeAdvertisements)
	}
	in.builder.SetBGP(conf)
}

// joined adds what one object says of its node.
func joined[V any](all, one map[string]V) map[string]V {
	if all == nil && len(one) > 0 {
		all = make(map[string]V, len(one))
	}
	maps.Copy(all, one)
	return all
}
