// Package deletions counts the routes that the kernel of a namespace loses.
//
// The kernel files each deletion in a socket's queue before it answers the one who asked for it, so a count taken afterwards has it; nothing runs
// meanwhile, and nothing is missed between Watch and the first event.
package deletions
