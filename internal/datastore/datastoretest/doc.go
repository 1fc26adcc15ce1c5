// Package datastoretest is the datastore for tests: Memory keeps the objects in the process, Faulty makes any
// Store fail as a real one does, and Contract is the list of promises every Store is held to.
//
// # What flows in and out
//
// Memory implements datastore.Store and nothing else: no watch, no files. Each object goes in and comes out as a deep
// copy, so what a caller does with it afterwards changes nothing in the store; this is what a Store over a network
// does by nature, and a test against a store that shares memory would not find the code that relies on it.
//
// Faulty wraps a Store and counts the writes that go through it. By its Plan a write is refused with a conflict, fails
// without being made, is made while its answer is lost, or is the last one before the client dies. One
// Faulty is one client: several of them over one Store are several processes of which one crashes.
//
// # Goroutines
//
// None are started. Memory and Faulty may be used from any number of goroutines.
//
// # Deviations from the Kubernetes API server
//
// An Update or Delete without a ResourceVersion is a conflict here, not an unconditional write: nothing in Caracal
// writes without having read, and the API server's leniency would hide where something did.
package datastoretest
