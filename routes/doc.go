// Package routes is the route programmer: the only room that changes links, addresses, neighbours and routes of the host.
package routes
