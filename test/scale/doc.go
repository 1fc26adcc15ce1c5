// Package scale measures one real daemon in vxlan mode against a real API server that holds a large cluster (make scale).
//
// In comes a size: nodes, blocks, heartbeats a minute, block updates a second. Out come the figures of docs/scale.md:
// time from start to the last route in the kernel, memory, CPU while only noise arrives, time from a claimed block to its
// route, bytes from the API server. Run by `go test ./...` the cluster is small and only what does not depend on the machine
// is asserted, so that the measuring itself does not rot; `make scale` asks for 5,000 nodes and asserts the targets.
//
// The daemon is a child process in a network namespace of its own. It reaches the API server, which listens on the host's
// loopback, through a relay that counts bytes (relay_test.go). Writers of noise run in the test's process, so what the
// daemon's process uses is the daemon's alone; API server, etcd and writers share the machine with it, so latencies are
// upper bounds.
package scale
