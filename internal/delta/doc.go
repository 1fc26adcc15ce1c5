// Package delta compares what is wanted with what is there, and remembers only the difference as work.
//
// A Tracker holds one Entry per key, with a desired and an actual value of a comparable type; the zero value means
// "nothing". Whoever hears a wish calls SetDesired, whoever sees the world calls SetActual, and the Tracker queues an entry the
// moment the two differ: as an update where something is desired, as a deletion where nothing is. TakeUpdate and
// TakeDeletion hand out queued entries in the order in which they came to differ. A taken entry is in the hands of the
// caller: it comes back when one of its values changes and they still differ, or by Wake, so that an entry that
// failed can wait for its back-off without being looked at. Nothing is ever walked but what changed, and setting a
// value that is set already costs neither an allocation nor a queue element.
//
// Where most keys fit into one word (NewPacked), as those of IPv4 routes do, they are looked up by it.
//
// An Entry carries room for a record of the caller's (Note), so that no second map of the same keys is needed; with
// 100,000 routes that is half the memory.
//
// The package is pure: no goroutine, no clock, no lock. Its user guards it.
package delta
