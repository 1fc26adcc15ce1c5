package calico

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Secret is Kubernetes' Secret, read for the passwords of BGP sessions. What it holds appears in no problem and no log.
type Secret struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Data       map[string]Opaque `yaml:"data,omitempty" json:"data,omitempty"`             // base64
	StringData map[string]Opaque `yaml:"stringData,omitempty" json:"stringData,omitempty"` // as it is; wins over Data
}

// Opaque is a value that must not be shown.
type Opaque string

// String hides the value.
func (Opaque) String() string { return "(hidden)" }

// UnmarshalYAML reads a string without ever repeating it in an error.
func (o *Opaque) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return errors.New("must be a string: write it in quotes (its value is not shown here)")
	}
	*o = Opaque(n.Value)
	return nil
}

// Kind returns Secret.
func (*Secret) Kind() Kind { return KindSecret }

// Meta returns the object's metadata.
func (o *Secret) Meta() *ObjectMeta { return &o.ObjectMeta }

// readsSecrets reports whether Secrets of a namespace are read: those calico-node runs in. Manifests of the file datastore need
// not name one.
func readsSecrets(namespace string) bool {
	return slices.Contains([]string{"", "kube-system", "calico-system"}, namespace)
}

// Secret checks and converts the secret. A value that cannot be read makes all of it unusable.
func (o *Secret) Secret() (*cluster.Secret, []cluster.Problem) {
	c := newCheck(o)
	out := &cluster.Secret{Name: o.Name, Data: make(map[string]string, len(o.Data)+len(o.StringData))}
	for key, v := range o.Data {
		text, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(v)), ""))
		if err != nil {
			c.add("data."+key, "is not base64: encode the value, or write it plainly under stringData")
			continue
		}
		out.Data[key] = string(text)
	}
	for key, v := range o.StringData {
		out.Data[key] = string(v)
	}
	if !c.ok() {
		slices.SortFunc(c.problems, func(a, b cluster.Problem) int { return strings.Compare(a.Field, b.Field) })
		return nil, c.problems
	}
	return out, nil
}

// UnmarshalYAML never fails, because a password that is asked for in the wrong form is still asked for: what cannot be read leaves
// SecretKeyRef nil, which is told when the object is checked.
func (p *Password) UnmarshalYAML(n *yaml.Node) error {
	*p = Password{}
	if ref := Field(n, "secretKeyRef"); ref != nil && ref.Kind == yaml.MappingNode {
		p.SecretKeyRef = &SecretKeyRef{Name: text(Field(ref, "name")), Key: text(Field(ref, "key"))}
	}
	return nil
}

// password reads a reference to a secret. With a problem the password is still wanted.
func (c *check) password(field string, p *Password) cluster.SecretKey {
	if p == nil {
		return cluster.SecretKey{}
	}
	out := cluster.SecretKey{Wanted: true}
	if p.SecretKeyRef == nil || p.SecretKeyRef.Name == "" || p.SecretKeyRef.Key == "" {
		c.add(field, "names no secret: write secretKeyRef with the name of a Secret and a key in it")
		return out
	}
	out.Name, out.Key = p.SecretKeyRef.Name, p.SecretKeyRef.Key
	return out
}
