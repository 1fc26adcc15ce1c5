package kubelab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/datastore/kube"
	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/test/kubetest"
	"github.com/caracal-net/caracal/test/need"
)

// bindings give the daemons' user the shipped roles, which the shipped bindings give to a service account.
const bindings = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lab}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: caracald}
subjects: [{kind: User, name: daemon, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lab, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: caracald}
subjects: [{kind: User, name: daemon, apiGroup: rbac.authorization.k8s.io}]
`

// Start runs an API server until the test ends and returns it as a lab's datastore, and itself for further questions.
func Start(t testing.TB) (*lab.Kubernetes, *kubetest.Server) {
	t.Helper()
	server := kubetest.Start(t)
	Furnish(t, server)
	admin, err := kube.Open(t.Context(), kube.Options{Config: server.Config(kubetest.Admin), APIGroup: string(kubetest.Classic)})
	if err != nil {
		t.Fatal(err)
	}
	return &lab.Kubernetes{
		Kubeconfig: server.Kubeconfig(t, kubetest.Daemon),
		Address:    strings.TrimPrefix(server.URL(), "https://"),
		Admin:      admin,
		Stop:       func() error { server.KillAPIServer(); return nil },
		Start:      func() error { server.StartAPIServer(t); return nil },
	}, server
}

// Furnish gives an empty API server the definitions and the daemons' rights.
func Furnish(t testing.TB, server *kubetest.Server) {
	t.Helper()
	server.InstallCRDs(t, kubetest.Classic)
	root, err := need.Repository()
	if err != nil {
		t.Fatal(err)
	}
	roles, err := os.ReadFile(filepath.Join(root, "deploy/base/rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	server.Apply(t, string(roles))
	server.Apply(t, bindings)
}
