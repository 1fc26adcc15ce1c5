// Package lab holds the tests of whole clusters: the lab's scenarios and every mode with every family, each with real
// caracald processes in network namespaces. What needs IPIP runs in the guest kernel where this one has none
// (make test-guest), on programs built outside, which CARACAL_BIN names.
package lab
