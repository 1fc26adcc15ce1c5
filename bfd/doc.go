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
// that failed; none is open before a session needs it. The pacemaker has a goroutine and its thread. One goroutine tells of changes, so that a slow listener keeps no session from its
// packets. New starts it, Close and Handover end all of them.
//
// # A planned restart
//
// A peer takes a silence of its detection time for a dead path, and a daemon is away for longer. Before a planned end, Handover tells the
// peers of a slow pace by a poll sequence (RFC 5880 section 6.5), and writes discriminators, ports and intervals of those that agreed to a
// file. The next process reads it when it is first told of sessions, since its predecessor may not have ended before, goes on in state Up
// under the same discriminators, and polls the fast pace back. A process that is killed leaves nothing: its peers see their sessions go
// down. Our packets say so beforehand, for their C bit is clear: our BFD shares the fate of the control plane, and a peer that keeps to
// RFC 5882 section 4.3 lets graceful restart decide, and not BFD.
//
// # A process that does not run
//
// On a host whose processors are short, a thread that has something to do waits for tens of milliseconds, and a few of these in a row are a dead path to the
// peer. So packets that are due are sent by a pacemaker (pace_linux.go): one thread with real-time priority, which sleeps until a packet is due, sends it, and
// neither waits for a lock nor opens a socket. The sessions' goroutines do the rest, and what the pacemaker has not done within 10 ms. It needs CAP_SYS_NICE; without it
// everything is as without a pacemaker. It is no better than the Go scheduler where the daemon itself keeps all processors busy.
//
// After a pause in which the process was not run, packets wait in the sockets that would have kept sessions up. A session whose
// detection time ends after such a pause, or while packets are seen to wait, reads for 10 ms before it goes down, and again for a tenth of a second at
// most: a busy host runs a process late more than once.
//
// # Values that change
//
// Values may change while a poll for others is under way. A Final does not say which poll it answers, so those of polls with former
// values are counted off: slower packets before the peer has agreed to them would be a dead path to it.
//
// # Deviations and what is not here
//
//   - Echo, authentication and our own demand mode are not there; packets with authentication are discarded. A peer's demand
//     mode is honoured.
//   - Not up, RFC 5880 asks for a packet a second at most; what has changed is said at once, as section 6.8.7 advises, so that a session
//     is up within a few round trips of the peer's first packet.
//   - A poll that is not answered is repeated with every packet, for ever.
//   - AdminDown is said three times at once and not for a detection time (RFC 5880 section 6.8.16): a process that ends does not wait.
package bfd
