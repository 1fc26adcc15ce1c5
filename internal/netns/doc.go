// Package netns makes, enters and removes network namespaces for the lab and for tests.
//
// A namespace is pinned under /run/netns, so that ip(8) sees it as "ip netns". Go threads do not inherit a namespace
// from the goroutine that started them: work either happens inside Do, on one locked thread, or in a child
// process started by Start. Netlink handles are bound to a namespace by its path (internal/kernel.Open).
package netns
