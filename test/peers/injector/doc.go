// Package injector is a BGP speaker for tests: it brings one session up, announces as many prefixes as it is told to as fast as TCP
// takes them, and does nothing else. It has no table, no policy and no decision process, and shares no code with the engine
// under test.
//
//	Announcement -> encode -> one buffer of packed UPDATEs -> Session.Send -> TCP
//	TCP -> the session's reader -> Options.OnUpdate
//
// What is to be sent is encoded before the clock starts. A Session owns two goroutines: one reads, one keeps the session
// alive; both end with Close or with the connection. The functions may be called from any goroutine.
//
// # Standards
//
// RFC 4271 (messages of at most 4096 octets), 4760 (IPv6 unicast), 6793 (four-octet AS), 4724 (the capability and End-of-RIB; it
// offers restart, with a time the test chooses), 2918 (offered, a request is ignored), 1997 (communities). Nothing else is
// offered, so nothing else is to be expected of the other side.
//
// # Known deviations
//
// Timers are not RFC 4271's: the hold timer is the reader's deadline, connecting is tried every few milliseconds until
// the caller's context ends. There is no collision detection (section 6.8): the injector has one connection.
package injector
