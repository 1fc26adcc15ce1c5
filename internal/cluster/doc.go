// Package cluster says in Caracal's own words what a cluster is: nodes, pools, blocks, claims, peerings and settings, and one
// immutable State that holds them all at one moment.
//
// # What flows in and out
//
// A datastore reads Calico's resources, has them translated (internal/calico) and hands the results to a Builder
// one by one. Builder.State makes a State; from there on everything is a function of States: the VXLAN plan, the BGP
// plan, `caracal explain`. No plan reads the datastore and nothing here knows where an object came from.
//
// A Set method says false when the new object equals the old in everything that is routed on. Calico's Node objects change
// every few seconds for reasons that are none of our business, and this is the place where those changes end.
//
// # How a State is kept cheap
//
// A State is a handful of sorted lists of pointers. A Builder collects what was asked for since its last State and
// merges it into new lists, so a burst costs one merge; lists that nothing touched are shared with the State before, and
// so are all unchanged objects. With 5,000 nodes and 20,000 blocks one changed block costs one copy of a list of
// 20,000 pointers: 160 kB, some ten microseconds. A persistent trie would copy less but then Blocks() would have to
// walk it, and plans walk the blocks more often than anything else.
//
// Searches are binary. The longest match for an address tries each prefix length in use, longest first; a
// cluster has two or three of them, and prefixes inside one another need no special case.
//
// Diff(old, now) tells a plan what it must look at again. For States in a row the Builder has written that down already;
// for any other two one walk compares pointers.
//
// # Rules across objects
//
// What one object alone can have wrong is found by its reader. What only shows against other objects is
// decided in Builder.State, always the same way: the last good state stays in effect, everything else goes on, and a
// Problem names object, field and remedy. Pools never overlap in a State: the pool that is in effect keeps its
// addresses and a newcomer waits; of several newcomers the first by name is taken. This is the one rule that depends on
// history, and so two nodes may disagree for as long as the datastore holds the two overlapping pools (Calico's own API server
// refuses to store them).
//
// # Goroutines
//
// A Builder belongs to the goroutine that reads the datastore. A State may be read by anybody.
package cluster
