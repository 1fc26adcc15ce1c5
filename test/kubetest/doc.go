// Package kubetest runs a real Kubernetes API server and its etcd on the loopback interface for tests.
//
// What flows in is a testing.TB, what comes out is a Server: two child processes of the binary that test/apiserver/build
// makes (package need skips or fails a test where it is missing), a directory with their keys and data, and one bearer
// token for each user a test may want to be. Authorisation is RBAC, as in clusters; the user Admin may do everything, the
// others nothing until a test grants it.
//
// The processes are separate so that a test can kill one of them, bring it back, or bring etcd back with older data.
//
// # Who owns what
//
// A Server belongs to one test, or through Shared to all tests of a package, which then run against the same cluster
// one after the other. Each process has one goroutine, bound to a thread of its own, which starts it and waits for it: the
// kernel kills a process when the thread that started it ends (PR_SET_PDEATHSIG), so a test that crashes leaves
// nothing behind but a directory under the system's temporary one.
//
// # What is not there
//
// No controllers run: namespaces stay terminating, nothing is garbage-collected, no EndpointSlices are made. The first
// custom resource of each kind takes two seconds to be written (a guard of the API server for several masters), so the
// definitions are installed once, with the server.
package kubetest
