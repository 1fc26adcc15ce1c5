// Package file is the datastore in a directory: --datastore=file:DIR.
//
// It is the datastore of the lab, of tests and of hosts without Kubernetes. People, editors and scripts write there as
// freely as the daemons do, and fifty daemons may share one directory.
//
// # What is read
//
// Every *.yaml, *.yml and *.json right in the directory, except hidden files and what editors leave beside a file. A file
// holds one document or many; a document holds a resource as package calico knows them, or a list of them as calicoctl
// and kubectl print it. Everything else in a document is left alone and does no harm. Links are followed, also when the
// hidden link they lead through is exchanged, as in a mounted ConfigMap.
//
// An object that is in several files, or twice in one, is taken from the first file by name and the first place in it;
// the others are a problem. That is the same on every node and after every restart.
//
// # What is believed, and when (ledger)
//
// Watch delivers a State after each change of something that is routed on, gathered over 5 ms of silence and never longer
// than 50 ms. Only files whose inode, size or times changed are read, and of those only documents whose text changed are parsed.
//
// A file need not be written in one step. A change is believed at once if nobody had the file open for writing when
// it was read, which the kernel tells (a read lease can be had); where it does not tell, when the file has been left alone for
// 250 ms, and while somebody still has it open for writing, for 5 s. What cannot be parsed, and objects that have disappeared - from a file, or with it -, must have been left
// alone for 250 ms in any case, so a half-written file, an editor that moves files about and an object that moves from one
// file to another cost nothing and are no errors. The price is that an object is missed 250 ms after it was removed.
//
// A document that cannot be parsed is a problem with its file, line, object and field, as far as they can be told; so is a
// value that is wrong. The last good form of the objects stays, everything else goes on.
//
// # In sync
//
// The first State in sync comes when every file in the directory has been read and understood. A directory or a file
// that cannot be read, or a document of ours that cannot be parsed, keeps a fresh process out of sync, because it does not
// know what it does not know: a State without that document would delete its routes. It says so in Update.Err, and
// delivers what it does know with InSync false. A value that is wrong does not: then it is known which object cannot be
// used. Once in sync, always in sync; what cannot be read any more stays as it was last.
//
// A directory that vanishes and comes back is waited for. One that comes back empty is taken for a mount that is missing,
// and one that comes back with something is given time to be filled before anything is given up.
//
// # What is written, and how (Store)
//
// Writers share one lock on the file .lock (flock, for as long as one write takes), read the file again under it, compare the version, write a
// hidden temporary file, fsync it and rename it into place, so nobody ever reads half of what a daemon wrote. An object
// is created in a file of its own, <kind>-<name>.yaml. One that lives in somebody's file is changed in place: other documents
// keep every byte, and in its own document fields that are not read, comments and order stay. PatchNode changes the
// tunnel addresses in the tree and nothing else. The last object takes its file with it.
//
// The resourceVersion is a hash of the text of the object's document, so any edit by hand changes it, a comment too.
// Update counts its writes in metadata.resourceVersion of the text, so that a content that comes back has another
// version. Objects that share a list share its version.
//
// "Not found" is only said when it is certain: an object that may be in a file which cannot be read, or whose name stands in
// a document that cannot be parsed, is an error of another kind, because callers create what is not found.
//
// # What if we die here?
//
// Before the rename: a hidden file stays, which nobody reads, and which any process removes a minute later. After it:
// the write is done. Holding the lock: the kernel releases it.
//
// # Goroutines
//
// Watch does all its work, and calls the sink, in its caller's goroutine; the library that reads inotify has one of its own.
// A slow sink makes updates fewer, not stale. The shelf of parsed files is shared by all and has a mutex; the ledger of
// what is in force belongs to one Watch. The methods of the Store may be called from any goroutine.
//
// # Limits
//
// A writer that does not know the lock and writes at the very moment of a rename loses; the file is compared once more
// right before. flock and inotify do not reach across a network file system: there, changes made elsewhere are found
// by looking every ten seconds, and daemons of several machines must not write to one directory.
package file
