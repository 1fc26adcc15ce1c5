// Package mesh measures BGP's sessions of large clusters on one machine (make bench-mesh): a node-to-node mesh of engines, each a process with a
// session to every other, and one engine against a mesh of simulated peers.
//
//	test -> job, commands on stdin -> child process: one bgp/gobgp Speaker -> reports on stdout
//	test -> test/peers/injector -> BGP -> child process
//
// Out come times to convergence, memory and processor time of the engines. Run by `go test ./...` the mesh is small and only what does not depend on
// the machine is asserted; `make bench-mesh` asks for 200 engines and 1,000 peers. All sockets are on the loopback device of a namespace made for
// the test. Children end when their stdin does, so none outlives the test.
//
// The engines get the same Configs as bgp.Plan makes of a mesh, but for what an engine does not look at. What all children use they share: with 200 of them
// on a few processors the time is that of all of them together, and says what the work of a whole cluster's start is, not how long it takes there.
package mesh
