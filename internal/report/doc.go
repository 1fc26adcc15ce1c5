// Package report tells of objects in the datastore that cannot be used as they are written, by Events on these objects, so that
// `kubectl describe` shows what is wrong to whoever has written one. `caracal status` shows the same on each node.
//
// # What flows in and out
//
// In come the States of the cluster, of which the Problems count that every node finds alike, and what this node has found besides. Out go calls of Options.Report, which makes an Event
// unless there is one of the same problem.
//
// # One Event, not one of each node
//
// All daemons of a cluster find the same problem at the same moment. Which of them reports is worked out from its text and the names of the nodes
// (highest random weight): the first at once, the next ones each ten seconds later, in case those before them are away, and all
// others not at all. The Event's name is made of the problem, so the ones behind the first find it there and do nothing. An API server
// forgets Events after an hour; until the object is mended each turn is repeated soon after that, and the Event comes back. A daemon reports no more than one problem a
// second, the longest waiting first.
//
// What a node finds by itself (SetFound: two programmers at one pool), others may or may not. There every node that finds it reports, spread over
// a time that grows with the cluster; the Event is the first one's.
//
// # Goroutines
//
// Run is one, which owns everything but the latest State.
package report
