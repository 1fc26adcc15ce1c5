// Package kerneltest holds the Fake kernel, the faults it can be told to have, and the conformance suite that the
// Fake and the real kernel both pass.
//
// The Fake keeps links, addresses, routes and neighbours in memory and behaves as Linux does where a route programmer can
// tell the difference: what counts as the same route in each family, which errno comes back, which routes vanish with
// their interface and whether an event says so, and that events of our own writes are seen too. What it does is what
// the conformance suite has measured on the real kernel; a difference between the two is a failing test, not an opinion.
//
// Faults are injected as a plan (Inject): the n-th call or operation of a kind fails in a given way, and the returned
// Injected says how often it did, so that a test can assert that its fault was really met. Everything that stands
// for another program on the same host (Foreign, Wire, Append, SetCarrier) bypasses the plan.
//
// The Fake starts no goroutine but one per Watch, which ends with its context; it uses no clock, so it works inside
// testing/synctest.
package kerneltest
