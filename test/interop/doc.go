// Package interop runs a real caracald against routers of others in a rack of namespaces: the node, a switch, two top-of-rack routers, and a
// server behind both of them to which a stream of packets goes all the time; or against a fabric of links without IPv4 addresses.
package interop
