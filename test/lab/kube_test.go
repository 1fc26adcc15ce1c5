package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/lab"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/kubelab"
	"github.com/caracal-net/caracal/test/kubetest"
	"github.com/caracal-net/caracal/test/need"
)

// TestElectionsKubernetes has a mesh elect reflectors, cordons one on a real API server, as kubectl does, and restarts its daemon; it plays
// the other steps, four minutes, with CARACAL_TEST_KILLS.
func TestElectionsKubernetes(t *testing.T) {
	t.Parallel()
	need.Root(t)
	opts := options(t)
	if opts.Kills == 0 {
		opts.Elections = 2
	}
	opts.Kubernetes, _ = kubelab.Start(t)
	playWith(t, lab.Spec{Mode: lab.NoEncapsulation, Family: lab.DualStack, Nodes: 6, Workloads: 1}, opts, "elections")
}

// TestScenariosKubernetes plays everything on a real API server, with daemons that have the shipped role and nothing else, cordons a
// node, and then looks at what each has left for the CNI plugin and told Kubernetes.
func TestScenariosKubernetes(t *testing.T) {
	t.Parallel()
	need.Root(t)
	k, server := kubelab.Start(t)
	opts := options(t)
	opts.Kubernetes = k
	if opts.Kills == 0 {
		opts.Kills = 8 // what is killed there is the same as with a directory
	}
	c := playWith(t, lab.Spec{Mode: lab.VXLANCrossSubnet, Family: lab.DualStack}, opts, "all")
	nodes := server.Client(t, kubetest.Admin).Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"})
	for _, step := range []caracalv1.Leaving_Step{caracalv1.Leaving_STEP_SHUTDOWN, caracalv1.Leaving_STEP_UNSPECIFIED} {
		cordon := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, step == caracalv1.Leaving_STEP_SHUTDOWN)
		if _, err := nodes.Patch(t.Context(), "node1", types.MergePatchType, []byte(cordon), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		kubetest.Eventually(t, "node1 is "+step.String(), func() error {
			st, err := c.Status(t.Context(), "node1")
			if err == nil && st.GetLeaving().GetStep() != step {
				err = fmt.Errorf("it is %v", st.GetLeaving())
			}
			return err
		})
	}
	for _, n := range c.Plan.Members() {
		for file, want := range map[string]string{"nodename": n.Name, "mtu": fmt.Sprint(c.Plan.WorkloadMTU())} {
			if got, err := os.ReadFile(filepath.Join(c.NodeDir(n.Name), file)); err != nil || string(got) != want {
				t.Errorf("%s of %s: %q, %v, want %q", file, n.Name, got, err, want)
			}
		}
		kubetest.Eventually(t, n.Name+" is available", func() error {
			u, err := nodes.Get(t.Context(), n.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
			for _, each := range list {
				if c := each.(map[string]any); c["type"] == "NetworkUnavailable" && c["status"] == "False" && c["reason"] == "CalicoIsUp" {
					return nil
				}
			}
			return fmt.Errorf("conditions %v", list)
		})
	}
}
