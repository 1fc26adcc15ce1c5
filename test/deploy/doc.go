// Package deploy tests what deploy/ ships: every overlay is rendered by kustomize and offered to a real API server, and its
// environment is read by the daemon's own start.
package deploy
