package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// manifest is an Installation as far as it is read. Its leaves stay YAML so that a wrong type can be told with its field.
type manifest struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Spec       struct {
		Provider yaml.Node `yaml:"kubernetesProvider"`
		CNI      struct {
			Type yaml.Node `yaml:"type"`
			IPAM struct {
				Type yaml.Node `yaml:"type"`
			} `yaml:"ipam"`
		} `yaml:"cni"`
		Network network `yaml:"calicoNetwork"`
	} `yaml:"spec"`
}

type network struct {
	Dataplane yaml.Node       `yaml:"linuxDataplane"`
	BGP       yaml.Node       `yaml:"bgp"`
	Routing   yaml.Node       `yaml:"clusterRoutingMode"`
	MTU       yaml.Node       `yaml:"mtu"`
	Pools     *[]poolManifest `yaml:"ipPools"`
	Detect4   *autodetection  `yaml:"nodeAddressAutodetectionV4"`
	Detect6   *autodetection  `yaml:"nodeAddressAutodetectionV6"`
}

type poolManifest struct {
	Name             yaml.Node `yaml:"name"`
	CIDR             yaml.Node `yaml:"cidr"`
	Encapsulation    yaml.Node `yaml:"encapsulation"`
	NATOutgoing      yaml.Node `yaml:"natOutgoing"`
	NodeSelector     yaml.Node `yaml:"nodeSelector"`
	BlockSize        yaml.Node `yaml:"blockSize"`
	DisableBGPExport yaml.Node `yaml:"disableBGPExport"`
	DisableNew       yaml.Node `yaml:"disableNewAllocations"`
	AllowedUses      yaml.Node `yaml:"allowedUses"`
	AssignmentMode   yaml.Node `yaml:"assignmentMode"`
}

type autodetection struct {
	FirstFound    yaml.Node `yaml:"firstFound"`
	Kubernetes    yaml.Node `yaml:"kubernetes"`
	Interface     yaml.Node `yaml:"interface"`
	SkipInterface yaml.Node `yaml:"skipInterface"`
	CanReach      yaml.Node `yaml:"canReach"`
	CIDRs         yaml.Node `yaml:"cidrs"`
}

const (
	apiVersion = "operator.tigera.io/v1"
	kind       = "Installation"
)

// find returns the one Installation among the documents of a file; the operator's example has others beside it.
func find(text []byte) (*manifest, error) {
	var found *manifest
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read YAML: %w", err)
		}
		var head struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string `yaml:"kind"`
		}
		if doc.Decode(&head) != nil || head.APIVersion != apiVersion || head.Kind != kind {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("there are two documents of kind %s: leave one of them out", kind)
		}
		found = &manifest{}
		if err := doc.Decode(found); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("there is no document with apiVersion %s and kind %s: name the file that the operator was given", apiVersion, kind)
	}
	return found, nil
}

// reading collects what is wrong with fields.
type reading struct{ errs []error }

func (r *reading) bad(field, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
}

// given reports whether a field has a value.
func given(n *yaml.Node) bool { return n.Kind != 0 && n.Tag != "!!null" }

// resolve steps over an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (r *reading) text(field string, n *yaml.Node, otherwise string) string {
	n = resolve(n)
	switch {
	case !given(n):
		return otherwise
	case n.Kind != yaml.ScalarNode || n.Tag != "!!str":
		r.bad(field, "must be a string: write it in quotes")
		return otherwise
	case n.Value == "":
		return otherwise
	}
	return n.Value
}

// word reads one of a few words; nothing stands for otherwise.
func (r *reading) word(field string, n *yaml.Node, otherwise string, allowed ...string) string {
	w := r.text(field, n, otherwise)
	if w != otherwise && !slices.Contains(allowed, w) {
		r.bad(field, "%q is not known: write one of %s", w, strings.Join(allowed, ", "))
		return otherwise
	}
	return w
}

func (r *reading) number(field string, n *yaml.Node) int {
	n = resolve(n)
	if !given(n) {
		return 0
	}
	i, err := strconv.Atoi(n.Value)
	if err != nil || n.Tag != "!!int" {
		r.bad(field, "%q is not a whole number: write digits without quotes", n.Value)
		return 0
	}
	return i
}

func (r *reading) boolean(field string, n *yaml.Node) bool {
	n = resolve(n)
	if !given(n) {
		return false
	}
	b, err := strconv.ParseBool(n.Value)
	if err != nil || n.Tag != "!!bool" {
		r.bad(field, "%q is not a boolean: write true or false", n.Value)
	}
	return b
}

func (r *reading) list(field string, n *yaml.Node) (out []string) {
	n = resolve(n)
	if !given(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.bad(field, "must be a list")
		return nil
	}
	for i, item := range n.Content {
		out = append(out, r.text(fmt.Sprintf("%s[%d]", field, i), item, ""))
	}
	return out
}
