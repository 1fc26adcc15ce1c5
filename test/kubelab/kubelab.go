package kubelab

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

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
	k := Of(t, server)
	k.Kubeconfig = server.Kubeconfig(t, kubetest.Daemon)
	return k, server
}

// Of returns a server, on which the definitions are installed, as a lab's datastore for daemons that find it by themselves.
func Of(t testing.TB, server *kubetest.Server) *lab.Kubernetes {
	t.Helper()
	admin, err := kube.Open(t.Context(), kube.Options{Config: server.Config(kubetest.Admin), APIGroup: string(kubetest.Classic)})
	if err != nil {
		t.Fatal(err)
	}
	pods, nodes := schema.GroupVersionResource{Version: "v1", Resource: "pods"}, schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	return &lab.Kubernetes{
		Address: strings.TrimPrefix(server.URL(), "https://"),
		Admin:   admin,
		Stop:    func() error { server.KillAPIServer(); return nil },
		Start:   func() error { server.StartAPIServer(t); return nil },
		AddPod:  func(_ context.Context, manifest string) error { server.Apply(t, manifest); return nil },
		RemovePod: func(ctx context.Context, namespace, name string) error {
			now := int64(0) // no kubelet confirms that it has ended
			err := server.Client(t, kubetest.Admin).Resource(pods).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		},
		PatchNode: func(ctx context.Context, name string, patch map[string]any) error {
			body, err := json.Marshal(patch)
			if err == nil {
				_, err = server.Client(t, kubetest.Admin).Resource(nodes).Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{})
			}
			return err
		},
	}
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
