// Package gobgp is the Speaker: an embedded GoBGP v4 server, and the only place that knows its types.
//
//	bgp.Config -> Apply -> diff -> server                     (the caller's goroutine, one at a time)
//	server -> its watcher -> feed -> deliver -> bgp.Events     (paths, session states, End-of-RIB)
//
// # What flows and who owns which goroutine
//
// The server runs goroutines of its own: one for management, three per session. It tells us of changes on one more, through a
// queue without a bound; so what runs there only files the news into the feed, which holds one entry per prefix and
// session however often they change, and goes back for more. The goroutine "deliver" takes what the feed has collected,
// all prefixes at once, and calls the Events, one after the other; then it lets a millisecond of news gather, so that a peer's table, which
// GoBGP tells of prefix by prefix, is handed on in hundreds and a change that comes alone is not held up. A consumer that is slow, or
// stands still, delays only what is delivered to itself. Methods may be called from any goroutine; Apply and Stop wait for each other.
//
// The server reports changes of best paths as differences, without saying which set they belong to. The feed adds them up: per
// prefix the set of equal best paths, told apart by the peer's address, its router id and the path id. Its own
// routes are left out, which is why a prefix that we originate is never reported as learned.
//
// # Restarts (RFC 4724, RFC 8538)
//
// Graceful restart is on for every session, restart time 120 s as BIRD in calico-node has it. What if we die here?
//
//   - The process is killed: the kernel closes its connections, peers keep our routes as stale for the restart time.
//   - Stop with graceful set: the connections are shut down under GoBGP before it is told to stop, so that it sends
//     neither a NOTIFICATION nor, to eBGP peers, withdrawals of what it has just dropped itself. To peers this looks like a kill.
//   - Stop without: Cease/Administrative Shutdown (as a Hard Reset where the peer knows RFC 8538), peers flush.
//   - Started with Options.Restarting: OPENs carry the restart and forwarding bits, without which a BIRD would flush at once.
//
// A peer that comes back from a restart without its forwarding state is not used until it has sent End-of-RIB, and one that comes back without the
// capability has its session begun anew if none comes (cold.go): GoBGP looks at neither. While a peer is away GoBGP drops what it keeps of it as soon as any
// connection with it comes to nothing; we go on using that for the restart time (hold.go). To clients and eBGP peers it is withdrawn all the same. A session that
// the peer ends for a collision of connections counts as such a restart.
//
// GoBGP then holds announcements back until every peer, those that are down included, has sent its End-of-RIB, or
// for the deferral time. A node of the mesh announces only what it originates, which it knows before the first session, so the
// deferral of iBGP sessions is one second; it is 30 s towards eBGP peers and clients, to whom learned routes are passed on.
//
// The Speaker is in sync when every session configured has brought its End-of-RIB (a peer without graceful restart counts ten
// seconds after its session came up, one that was up and stays away for longer than its own restart time from then on), at the latest when the restart time has run out since the first Apply. A change
// of our own AS, router id, or listening address needs a new server: it starts as after a restart, and what was learned before
// stays delivered, marked stale, until the new server is in sync.
//
// # Make before break
//
// A session with a node of the cluster (Config.Nodes) that is asked for no more goes on until every new session of its family has brought its
// End-of-RIB and every prefix that is in use because of it is known from another peer too, at most for Options.Overlap (overlap.go): so a mesh becomes
// clients of reflectors and a mesh again without a route being lost. Then its connection is shut down as in a crash, without a NOTIFICATION: the other node,
// which may not have come so far, keeps our routes for the restart time. A session with a node that must begin anew ends in the same way, and what
// it had brought stays in use, marked stale (hold.go), unless AS or password change. Anybody else's session ends at once, with Cease. A client that is to be
// none any more stays one for some seconds (Options.Reflecting): to begin its session anew is to withdraw from all others what it had sent. For as long does
// a session go on that the peer has ended already; then what it brought is held for our own use and told to nobody. While all
// this goes on, here and elsewhere, the last path to a prefix of a pool that leads to a node of the cluster stays in use for some seconds after it was taken back (crossing), because
// GoBGP does not compare the lengths of CLUSTER_LISTs. Limits: that is
// what happens when a client's session changes in another way; and a BIRD ends its sessions with Cease.
//
// # Rules
//
// GoBGP has one policy for all peers outside route servers. So a Config's rules and its Announce are compiled into two lists of
// statements, import and export, each statement naming its peers (compile.go, rules.go). A new program is put beside the old one and
// takes its place in one step (policy.go), before anything is announced and before peers are added: nothing is ever sent or
// accepted by fewer rules than asked for. Sessions stay up; routes are decided about again only for the peers for which the plain
// evaluation (bgp.Config.Send) of what we know differs (compare.go). What is compiled equals the plain evaluation, which is
// held by property tests over real sessions. One thing GoBGP cannot compare, LOCAL_PREF other than for equality: therefore
// learned routes inside our blocks with an elevated one are told it by name as they come and go.
//
// # Settling
//
// GoBGP puts what it has for a peer into one batch, in which the announcements and withdrawals of one prefix are in no order (unrest.go says why). So what peers were told of a
// prefix may be wrong, and stay so: when its best path was followed by another one within two seconds, or while a peer took in more slowly than it was
// told, or when a peer was told everything at about that time. Nor is a former best path withdrawn when it is followed, while rules change, by one that the new
// rules refuse too; when it was a client's and an ordinary iBGP peer's follows, which goes to no other; when one follows that has been through our cluster; or when it goes in the moment in
// which a session comes up. The feed finds such prefixes out of what it hears anyway. When nothing has happened to one for a second it is settled (settle.go): every peer is told once more
// what holds of it, or that there is nothing, without a moment's loss. That costs an UPDATE or two for the prefix and peer. While a peer is behind, a prefix is settled for all
// others, and once more when that peer has caught up. A prefix that was learned from one place is never settled, nor one that goes from one path to another now and
// then. Bounds: one goroutine, which leaves the server alone for nine times as long as it was at it, so about a tenth of one core whatever happens; then prefixes wait, and what
// changes all the time is not settled, for it is told anew all the time; one that is unsettled again and again waits for up to 15 s. What is remembered is the prefixes that wait. That a peer asks for everything (RFC 2918) is seen half a minute late.
//
// A session that was lost while much waited to be sent may come back as one over which GoBGP sends nothing, nor the next ones (mute_linux.go says why). It is found by the silence, a few seconds after it is up where
// there was something to tell when it was lost, else when a KEEPALIVE is overdue, and ended as in a crash. If it comes back no better the peer is put into the server anew.
//
// A session whose peer is Held is listed and not started. It counts as one that has not come up.
//
// # Timers
//
// A peer that sends more prefixes than its Peer.MaxPrefixes is taken out of the server, which drops its routes at once, and put back after five
// minutes or with another bound; being in sync does not wait for it. GoBGP counts its whole table on each UPDATE for that, so a bound makes large tables of single-prefix UPDATEs
// slow to receive. A peer that takes nothing of what is sent to it for eight minutes loses its session (RFC 9687) by a socket option of its
// connection's (sockets_linux.go); until then GoBGP keeps what it is to be told.
//
// GoBGP hands us every change through a queue without a bound. A session whose peer sends faster than we get the processor for waits at each UPDATE, as long as we
// are told late of what came before, for a fifth of a second at most (lag.go); TCP passes that on. So a storm of changes costs time and not memory.
//
// Hold 90 s, keepalive 30 s, unless the peer has a keepalive time of its own. Connections are tried after 1.5 to 2 s and then every 5 s (as in Calico). After a session was lost
// GoBGP stays idle for 5 s (a constant of its own) and refuses connections meanwhile; so a session returns after 5 to 10 s. A peer that connects
// and then says nothing for 8 s, or nothing after its OPEN, has its connections closed, and so have connections that GoBGP forgets when two have crossed
// (handshake.go). A peer that hears learned routes is told all of them once more a second after it came up, if any came about then (again.go).
//
// # Standards
//
// Sockets that listen answer with TTL 255, so that peers with TTL security can connect; GoBGP sets it only once a connection is accepted.
//
// RFC 4271 (BGP-4), 4760 (multiprotocol), 4724 (graceful restart), 8538 (its N bit), 6793 (four-octet AS), 7606 (revised error
// handling: a broken attribute costs its routes, not the session), 7911 (add-path, receiving only), 2918 (route
// refresh), 5082 (TTL security), 2385 (MD5), 4456 (reflection), 1997 and 8092 (communities), 4486 and 9003 (Cease subcodes), 8654 (extended messages), 9687 (the bound on sending).
//
// # Known deviations and limits
//
//   - GoBGP tells peers apart by address, so two sessions with one address on different ports are impossible (bgp.Plan picks one).
//   - RFC 4271 section 9.1.2.2: no IGP cost is compared; equal paths are those equal in LOCAL_PREF, AS_PATH length, ORIGIN, MED
//     and in being iBGP or not. Multipath and selection options are variables of the GoBGP packages, one for all
//     servers of a process; every Speaker sets them alike.
//   - Our own AS is put before a path before rules run. AS numbers prepended towards eBGP peers come first all the same, but
//     unless the list ends with our own AS that is in the path once more (bgp.ExactPrepend; the plan reports it).
//   - A route whose path holds the peer's AS is not sent to it, whatever the peer would allow; BIRD sends it.
//   - Two paths of one prefix that are the best ones right after one another may leave in one batch, and then in either order: see "Settling". Until such a prefix is settled a
//     peer may go on with the former path.
//   - When the best path becomes one that rules refuse, GoBGP asks them about the former one to find out whether to withdraw it; but it asks with the next hop of the
//     new path, and without our AS where an eBGP peer is concerned. Rules about AS paths are written so that the answer is right. A rule about interfaces
//     may get it wrong, so a peer that has one is told everything again a second after paths in use are gone or replaced (again.go); until then it may go on
//     with the former path. Only GoBGP could do better.
//   - Next hops are not resolved by GoBGP. Paths whose next hop leads nowhere (bgp.Nowhere) are marked on import with LLGR_STALE, and MED 4294967295, which
//     puts them behind all others and has nobody get them; what is told of a path shows it without. A path that a peer marks with LLGR_STALE
//     is sent on to nobody either (RFC 9494 section 4.3: no session here has the capability).
//   - IPv4 prefixes with IPv6 next hops (RFC 8950): GoBGP offers to take them whatever it is told, and passes them on to those who have not offered. So statements
//     of ours keep them from peers that are sent next hops as learned, until their OPEN has told that they take them (six.go). A link-local next hop is
//     used where no global one is given; after "::" it is not seen.
//   - A path too large for a peer's messages once our AS is in it is not sent, and a former path of the prefix stays with that peer until it is withdrawn or fits
//     again; nobody says so.
//   - A community that a path already carries is added a second time; receivers keep one.
//   - ORIGINATOR_ID and CLUSTER_LIST are not sent to peers that are no clients (RFC 4456 section 8 wants them there too), and a path
//     with our own cluster id is refused when it is sent on, not when it comes.
//   - The forwarding bit (RFC 4724 section 3) is in OPENs only as long as GoBGP believes that it restarts, which ends with the first End-of-RIB of
//     all peers. So when a connection is lost later and comes back, a peer that kept our routes drops them for the moment until they are told again
//     (section 4.2): BIRD 2 removes and adds them within one millisecond. Sending the bit always, as BIRD does, needs a change in GoBGP, which takes it
//     for the same as the restart bit.
//   - Policies cannot set LOCAL_PREF to 0, which RFC 8326 recommends for routes that are about to go: they get 1.
//   - The well-known communities of RFC 1997 mean nothing to GoBGP: statements of ours do what they ask for.
//   - Calico's BIRD also sends additional paths; a node of the mesh has none to send.
//   - A peer that sends a NOTIFICATION after an error of ours loses its routes here unless both know RFC 8538.
//   - Dial errors and the NOTIFICATIONs of sessions that never came up are known to GoBGP's log only, and are read from it.
package gobgp
