// Package snapshot keeps the last good State of a datastore on disk, so that a node that starts while the datastore is away has routes.
//
// # What flows in and out
//
// A Watcher stands before another Watcher. What that one delivers in sync is passed on, and written to a file now and then. As long as it has
// delivered nothing in sync, and Options.Grace is over, the State of the file is delivered with Update.Stale: the daemon adds what it says
// and takes nothing away, for it may lack what is new. With the first in-sync Update of the datastore the file has had its say.
//
// # The file
//
// A header with magic, version, time, length and SHA-256 of what follows, then the objects of the State, by encoding/gob. It is written beside and
// renamed, after fsync, with mode 0600, because BGP passwords are among the objects. One that is damaged, of another
// version, older than Options.MaxAge, of another node or larger than maxSize is told of once and not used. States that are suspect (Update.Suspect), partial
// (Err) or not in sync are never written.
//
// A State is written at most once in Options.Interval, and so seldom that the writing takes no more than a two-hundredth of the time; and
// once more at the end of Watch. So after a crash the file may lack the last seconds. A daemon that finds newer routes in the
// kernel then replaces them by older ones, if the datastore is away at the same time: the price of routes after a reboot.
//
// # Goroutines
//
// Watch runs the other Watcher in its caller's goroutine, and two of its own that end before it returns: one waits for Grace, one
// writes. The sink is never called by two at once.
package snapshot
