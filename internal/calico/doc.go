// Package calico holds Calico's resources as they are written in a datastore, and nothing of how they are stored.
//
// What flows in is YAML or JSON, one resource at a time: Decode turns a parsed document into one of the types of this
// package, and says for each value that has the wrong type which object, which field and which line it is. What flows
// out are the words of package cluster: every type has a method that checks the resource by Calico's own rules, applies
// Calico's defaults and converts. Selectors are parsed and matched here too.
//
// Both API groups are read, projectcalico.org/v3 and crd.projectcalico.org/v1; projectcalico.org/v3 is what is
// written. Only what Caracal routes on is read. Every other field, and every other kind, is somebody else's business
// and is tolerated, so that a file made for calicoctl or kubectl can be used as it is.
//
// Of Kubernetes' own kinds, Service, EndpointSlice and Pod are known too, as far as routes and announcements depend on them.
//
// A conversion returns the object and its problems. No object means that nothing of it can be used. An object together
// with problems is the object without the values that are wrong; a caller that still has the object as it was before the
// mistake keeps that one instead.
//
// All functions are pure and all types are plain values: nothing here has a goroutine, and a value may be used by
// several goroutines as long as none writes to it.
//
// Facts are Calico's (release 3.33 and its successors): field names, defaults and rules from its API package
// (ippool.go, bgpconfig.go, bgppeer.go, felixconfig.go), its libcalico-go (names, selectors, IPAM model).
// Deviations, on purpose:
//   - Calico's CRDs without validation rules can hold a pool with two encapsulations, or IPIP on IPv6. Felix then
//     picks one silently; here the pool is refused in words.
//   - A VXLAN MAC address that is a group address is refused: no device can have it.
//   - A BGPPeer of which a field cannot be used is not used at all: a session without what the field says would not do what was
//     asked for.
//   - FelixConfiguration: only the resource named default is read.
package calico
