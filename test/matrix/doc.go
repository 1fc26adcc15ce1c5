// Package matrix runs a real caracald against every router we know, rule by rule: one table, routers across, rules down, each cell with
// namespaces, daemon and router of its own, and each with a session of both families.
//
//	node 192.0.2.10, 2001:db8::10  ---- eth0 ----  router 192.0.2.1, 2001:db8::1
//
// Beside it: two top-of-rack routers with equal paths, one for each link of the node; and a mesh of two of our nodes and two of BIRD 1.6, the latter
// configured as Calico's templates would, which becomes clients of a reflector of either kind and a mesh again. In the guest kernel the mesh has IPIP, in two
// subnets (mixed_ipip_test.go): what Calico's BIRD has for it and no other does a program of the test (tunnels_test.go), and a socket listens on the wire.
//
// Two more are about next hops: what a router names as such, and what the host makes of it (hops_test.go); and about fields that change under a running
// daemon (fields_test.go).
//
// Cells wait for timers, not for the processor, and run many at once; every wait has a deadline, none is a pause.
//
// What a router cannot do is in the table with the reason, and that it cannot is asserted too where it shows. docs/interop.md has the table, and a test sees
// to it that it is this one.
package matrix
