package calico

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/cluster"
)

// wordOf reads a manifest and describes what is made of it: "" for nothing, "problem: ..." for what is wrong.
func wordOf(t *testing.T, manifest string) string {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(manifest), &doc); err != nil {
		t.Fatal(err)
	}
	found, stray := Resources(&doc)
	if len(found) != 1 || len(stray) > 0 {
		return fmt.Sprintf("%d objects, %v", len(found), stray)
	}
	word, problems := found[0].Word()
	if len(problems) > 0 {
		return "problem: " + problems[0].Object + " " + problems[0].Field
	}
	switch w := word.(type) {
	case nil:
		return ""
	case *cluster.Service:
		return fmt.Sprintf("%s %v %v %v %v %v %d", w.Name, w.ClusterIPs, w.ExternalIPs, w.LoadBalancerIPs, w.Local, w.InternalLocal, w.HealthPort)
	case *cluster.EndpointSlice:
		return fmt.Sprintf("%s of %s %s %q", w.Name, w.Service, w.Family, w.Ready)
	case *cluster.Pod:
		return fmt.Sprintf("%s on %s %v %v", w.Name, w.Node, w.Addrs, w.Labels)
	}
	return fmt.Sprintf("%T", word)
}

// TestKubernetesWords: what is routed and announced by, of Kubernetes' own objects.
func TestKubernetesWords(t *testing.T) {
	service := func(body string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: apps}\n" + body
	}
	slice := func(label, body string) string {
		return "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, namespace: apps, labels: {" + label + "}}\n" + body
	}
	pod := func(meta, body string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: web-0, namespace: apps" + meta + "}\n" + body
	}
	const of = "kubernetes.io/service-name: web"
	for name, c := range map[string]struct{ manifest, want string }{
		"cluster addresses, sorted": {service("spec: {clusterIP: fd96::7, clusterIPs: [fd96::7, 10.96.0.7], ports: [{port: 80}]}"), "apps/web [10.96.0.7 fd96::7] [] [] false false 0"},
		"of old":                    {service("spec: {clusterIP: 10.96.0.7}"), "apps/web [10.96.0.7] [] [] false false 0"},
		"headless":                  {service("spec: {clusterIP: None, clusterIPs: [None]}"), ""},
		"without an address yet":    {service("spec: {type: LoadBalancer}"), ""},
		"another's name":            {service("spec: {type: ExternalName, externalName: example.com, clusterIP: 10.96.0.7}"), ""},
		"Local, of a node port": {service("spec: {type: NodePort, clusterIP: 10.96.0.7, externalTrafficPolicy: Local, internalTrafficPolicy: Local, externalIPs: [198.51.100.9]}"),
			"apps/web [10.96.0.7] [198.51.100.9] [] true true 0"},
		"Local does not concern cluster addresses alone": {service("spec: {type: ClusterIP, clusterIP: 10.96.0.7, externalTrafficPolicy: Local}"), "apps/web [10.96.0.7] [] [] false false 0"},
		"Local, of external addresses": {service("spec: {type: ClusterIP, clusterIP: 10.96.0.7, externalIPs: [198.51.100.9], externalTrafficPolicy: Local}"),
			"apps/web [10.96.0.7] [198.51.100.9] [] true false 0"},
		"load balancer's addresses": {service("spec: {type: LoadBalancer, clusterIP: 10.96.0.7, externalTrafficPolicy: Local, healthCheckNodePort: 30000}\n" +
			"status: {loadBalancer: {ingress: [{ip: 203.0.113.9, ipMode: VIP}, {ip: 203.0.113.8}, {ip: 203.0.113.7, ipMode: Proxy}, {hostname: lb}]}}"),
			"apps/web [10.96.0.7] [] [203.0.113.8 203.0.113.9] true false 30000"},
		"what is left of them":  {service("spec: {type: ClusterIP, clusterIP: 10.96.0.7}\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}"), "apps/web [10.96.0.7] [] [] false false 0"},
		"no address":            {service("spec: {clusterIP: 10.96.0.7, externalIPs: [198.51.100.9, nonsense]}"), "problem: Service apps/web spec.externalIPs[1]"},
		"a wrong type":          {service("spec: {clusterIP: [1]}"), "problem: Service apps/web spec.clusterIP"},
		"the default namespace": {"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.7}", "default/web [10.96.0.7] [] [] false false 0"},
		"somebody else's kind":  {"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}", "0 objects, []"},
		"without a name":        {"apiVersion: v1\nkind: Pod\nmetadata: {generateName: web-}", "0 objects, []"},
		"endpoints":             {slice(of, "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], nodeName: b}, {nodeName: a, conditions: {ready: true}}, {nodeName: c, conditions: {ready: false, serving: true}}, {nodeName: a}]"), `apps/web-1 of apps/web IPv4 ["a" "b"]`},
		"endpoints of no node":  {slice(of, "addressType: IPv6\nendpoints: [{addresses: [fd00::1]}]"), `apps/web-1 of apps/web IPv6 [""]`},
		"no endpoints":          {slice(of, "addressType: IPv6"), `apps/web-1 of apps/web IPv6 []`},
		"endpoints by name":     {slice(of, "addressType: FQDN\nendpoints: [{addresses: [example.com]}]"), ""},
		"endpoints of nobody":   {slice("a: b", "addressType: IPv4"), ""},
		"a pod":                 {pod("", "spec: {nodeName: a}\nstatus: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: fd00::1}]}"), "apps/web-0 on a [10.0.0.1 fd00::1]"},
		"a pod's labels": {pod(", labels: {color: red, projectcalico.org/namespace: none}", "spec: {nodeName: a, serviceAccountName: robot}\nstatus: {podIP: 10.0.0.1}"),
			"apps/web-0 on a [10.0.0.1] map[color:red projectcalico.org/namespace:apps projectcalico.org/orchestrator:k8s projectcalico.org/serviceaccount:robot]"},
		"a pod of old":           {pod("", "spec: {nodeName: a}\nstatus: {phase: Running, podIP: 10.0.0.1}"), "apps/web-0 on a [10.0.0.1]"},
		"as the CNI plugin says": {pod(", annotations: {cni.projectcalico.org/podIP: 10.0.0.1/32, cni.projectcalico.org/podIPs: '10.0.0.1/32,fd00::1/128'}", "spec: {nodeName: a}\nstatus: {phase: Pending}"), "apps/web-0 on a [10.0.0.1 fd00::1]"},
		"one annotation":         {pod(", annotations: {cni.projectcalico.org/podIP: 10.0.0.1/32}", "spec: {nodeName: a}"), "apps/web-0 on a [10.0.0.1]"},
		"its network has ended": {pod(", deletionTimestamp: 2026-01-01T00:00:00Z, annotations: {cni.projectcalico.org/podIP: ''}",
			"spec: {nodeName: a}\nstatus: {phase: Running, podIPs: [{ip: 10.0.0.1}]}"), ""},
		"it is ending": {pod(", deletionTimestamp: 2026-01-01T00:00:00Z, annotations: {cni.projectcalico.org/podIP: 10.0.0.1/32}",
			"spec: {nodeName: a}\nstatus: {phase: Running, podIPs: [{ip: 10.0.0.1}]}"), "apps/web-0 on a [10.0.0.1]"},
		"it has ended":        {pod("", "spec: {nodeName: a}\nstatus: {phase: Failed, podIPs: [{ip: 10.0.0.1}]}"), ""},
		"of the host's":       {pod("", "spec: {nodeName: a, hostNetwork: true}\nstatus: {phase: Running, podIPs: [{ip: 192.0.2.1}]}"), ""},
		"a pod's bad address": {pod("", "spec: {nodeName: a}\nstatus: {podIPs: [{ip: nonsense}]}"), "problem: Pod apps/web-0 status.podIPs[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := wordOf(t, c.manifest); !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
