// Package deploy tests what deploy/ ships: every overlay is rendered by kustomize and offered to a real API server, its
// environment is read by the daemon's own start, the image is built by the Containerfile (test/image), and a daemon runs as the DaemonSet
// says, and is held to it. Whole clusters in namespaces (internal/lab) have the pods of each overlay for daemons, and go through a rolling update.
//
// There is no container runtime. A pod (pod_linux_test.go) has done to it what a kubelet and a runtime do with the parts of a
// manifest that ours uses: the test's own program starts again as a child, makes the mounts, gives up every capability but the listed
// ones, and becomes the daemon. The API server writes down what the service account asks for; every right that was refused, and
// every one that nobody used, is a failure.
package deploy
