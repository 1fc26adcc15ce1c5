// Package kubelab gives a cluster of namespaces (internal/lab) a real API server for its datastore: Calico's resource definitions are
// installed, and the daemons have the role that deploy/base ships, and no other right.
//
// In flows nothing but the test API server's program and deploy/base/rbac.yaml; out comes a lab.Kubernetes. The server and etcd are
// processes of kubetest's; lab forwards its address into the nodes' namespaces. There is no goroutine here.
package kubelab
