package install

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/startup"
)

// Options say where Caracal is installed.
type Options struct {
	Namespace string // of ConfigMap and DaemonSet
	DaemonSet string // its name
	Container string // of the DaemonSet
}

// DefaultOptions are the names of our own manifests.
func DefaultOptions() Options {
	return Options{Namespace: "kube-system", DaemonSet: "caracal", Container: "caracal"}
}

type meta struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

type configMap struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   meta   `yaml:"metadata"`
	Data       struct {
		Backend string `yaml:"calico_backend"`
		MTU     string `yaml:"veth_mtu"`
	} `yaml:"data"`
}

// daemonSet is a strategic merge patch: the environment of one container.
type daemonSet struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   meta   `yaml:"metadata"`
	Spec       struct {
		Template struct {
			Spec struct {
				Containers []container `yaml:"containers"`
			} `yaml:"spec"`
		} `yaml:"template"`
	} `yaml:"spec"`
}

type container struct {
	Name string     `yaml:"name"`
	Env  []variable `yaml:"env"`
}

type variable struct {
	Name  string  `yaml:"name"`
	Value *string `yaml:"value,omitempty"`
	From  *source `yaml:"valueFrom,omitempty"`
}

type source struct {
	Field *fieldRef `yaml:"fieldRef,omitempty"`
	Key   *keyRef   `yaml:"configMapKeyRef,omitempty"`
}

type fieldRef struct {
	Path string `yaml:"fieldPath"`
}

type keyRef struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

// Render writes what to apply: pools and ConfigMap as objects, and the DaemonSet as a patch of its environment.
func (in *Installation) Render(o Options) ([]byte, error) {
	var b bytes.Buffer
	document := func(comment string, v any) error {
		fmt.Fprintf(&b, "---\n# %s\n", comment)
		enc := yaml.NewEncoder(&b)
		enc.SetIndent(2)
		return errors.Join(enc.Encode(v), enc.Close())
	}
	for _, p := range in.Pools {
		if err := document("calicoctl apply, or kubectl apply where projectcalico.org/v3 is served", calico.Encode(p)); err != nil {
			return nil, fmt.Errorf("write IPPool %s: %w", p.Name, err)
		}
	}
	c := configMap{APIVersion: "v1", Kind: "ConfigMap", Metadata: meta{calico.ConfigMapName, o.Namespace}}
	c.Data.Backend, c.Data.MTU = string(in.Backend), strconv.Itoa(in.MTU)
	if err := document("kubectl apply", c); err != nil {
		return nil, fmt.Errorf("write ConfigMap: %w", err)
	}
	d := daemonSet{APIVersion: "apps/v1", Kind: "DaemonSet", Metadata: meta{o.DaemonSet, o.Namespace}}
	d.Spec.Template.Spec.Containers = []container{{o.Container, in.env()}}
	if err := document("a patch: kubectl patch --type strategic, or a patch of a kustomization", d); err != nil {
		return nil, fmt.Errorf("write DaemonSet: %w", err)
	}
	return b.Bytes(), nil
}

// env is the environment as the operator gives it to calico-node.
func (in *Installation) env() []variable {
	var out []variable
	set := func(name, value string) { out = append(out, variable{Name: name, Value: &value}) }
	key := func(name, key string) {
		out = append(out, variable{Name: name, From: &source{Key: &keyRef{calico.ConfigMapName, key}}})
	}
	out = append(out, variable{Name: startup.EnvNodeName, From: &source{Field: &fieldRef{"spec.nodeName"}}})
	key(startup.EnvBackend, "calico_backend")
	set(startup.EnvWait, "true")
	set(startup.EnvNoPools, "true")
	words := "k8s,operator"
	if in.BGP {
		words += ",bgp"
	}
	set(startup.EnvClusterType, words)
	for _, x := range []struct{ address, name, method string }{
		{startup.EnvIP, startup.EnvMethod, in.Method4}, {startup.EnvIP6, startup.EnvMethod6, in.Method6},
	} {
		if x.method == "" {
			set(x.address, "none")
			continue
		}
		set(x.address, "autodetect")
		set(x.name, x.method)
	}
	if in.Method4 == "" && in.Method6 != "" {
		set(startup.EnvRouterID, "hash")
	}
	set(startup.EnvIPv6Support, strconv.FormatBool(in.Method6 != ""))
	for _, name := range []string{startup.EnvIPIPMTU, startup.EnvVXLANMTU, startup.EnvVXLANMTU6} {
		key(name, "veth_mtu")
	}
	return out
}
