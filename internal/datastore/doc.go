// Package datastore says what Caracal wants of the place where the cluster's resources are kept.
//
// There are two sides. A Watcher delivers the cluster's state, whole and immutable, with a mark that says whether all of it
// has been read once; nothing downstream knows which kind of datastore it came from. A Store reads and writes single
// objects with compare-and-swap; IPAM lives on it, and our own Node is patched through it. Nothing else in the process
// reads or writes resources.
//
// The packages below implement both: file for a directory of manifests, and kube for the Kubernetes API.
// Package datastoretest has the promises of a Store as a test suite, and a Store in memory.
//
// # From objects to a State
//
// An Intake stands between a Watcher and the cluster.Builder. It is told what each object says now and what is wrong with
// it, and keeps these rules for every datastore alike:
//
//   - An object with a problem does not replace the good one it was before; the problem is reported, the good one stays.
//   - An object that never was good is used without the values that are wrong where that makes sense (package calico
//     says where), else it is not used.
//   - What is equal to what is there already changes nothing, so an event without a change wakes nobody.
//
// Services, EndpointSlices and Pods are only watched; no Store reads or writes single ones. Their names have the namespace in front:
// "default/web".
//
// # Errors
//
// The three error values are what callers branch on: not found, already there, changed since it was read. A Store that
// cannot tell says so with an error that is none of them: to take an unreadable object for a missing one would hand out
// its addresses twice.
//
// # Goroutines
//
// None are started here. An Intake belongs to the goroutine of its Watcher; Stores may be used from any goroutine.
package datastore
