// Package cli is the command caracal: it asks the daemon of this node over its unix socket and writes the answer as a table,
// JSON or YAML, with the renderer of package inspect.
//
// Exit codes are 0 for success, 1 for an error or a check that did not pass, and 2 for a command that was written
// wrongly, also where the daemon is the one to notice. Output goes to standard output alone, everything said about it
// to standard error, so that a pipe gets tables and JSON and nothing else.
package cli
