// Package bfd runs BFD sessions (RFC 5880) in asynchronous mode with the node's BGP peers, over one hop (RFC 5881) and over several
// (RFC 5883), in IPv4 and IPv6, link-local addresses among them.
//
// # What flows in and out
//
// Set takes the whole list of wanted sessions; Changed tells of each session that enters or leaves Up, Status shows all of them. What a
// dead path means is the caller's to say: this package knows nothing of BGP.
//
// # Who owns what
//
// Each session has a goroutine, which owns its state machine (session.go, pure and without a clock), its timer and its sending socket.
// Each of the up to four listening sockets (two families, ports 3784 and 4784) has a goroutine that reads, and opens the socket again when
// that failed; none is open before a session needs it. One goroutine tells of changes, so that a slow listener keeps no session from its
// packets. New starts it, Close and Handover end all of them.
//
// # A planned restart
//
// A peer takes a silence of its detection time for a dead path, and a daemon is away for longer. Before a planned end, Handover tells the
// peers of a slow pace by a poll sequence (RFC 5880 section 6.5), and writes discriminators and intervals of those that agreed to a file. The
// next process finds it, goes on in state Up under the same discriminators, and polls the fast pace back. A process that is killed
// leaves nothing: its peers see their sessions go down. Our packets say so beforehand, for their C bit is clear: our BFD shares the fate of
// the control plane, and a peer that keeps to RFC 5882 section 4.3 lets graceful restart decide, and not BFD.
//
// # A process that does not run
//
// After a pause in which the process was not run, packets wait in the sockets that would have kept sessions up. A session whose
// detection time ends after such a pause reads for 10 ms before it goes down.
//
// # Deviations and what is not here
//
//   - Echo, authentication and our own demand mode are not there; packets with authentication are discarded. A peer's demand
//     mode is honoured.
//   - Not up, RFC 5880 asks for a packet a second at most; what has changed is said at once, as section 6.8.7 advises, so that a session
//     is up within a few round trips of the peer's first packet.
//   - A poll that is not answered is repeated with every packet, for ever.
//   - The source port of a session changes while nobody answers, and then stays (RFC 5881 section 4 asks for one port for all of it).
package bfd
