package calico

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Resource is one object of a kind that is read, found in a document.
type Resource struct {
	Kind Kind
	Name string
	// Node is the object's own mapping in the document; its Line counts from the document's beginning.
	Node *yaml.Node
	// Object holds what could be read. Fields with a problem have their zero value.
	Object Object
	// Problems says which values have the wrong type; File is empty.
	Problems []cluster.Problem
}

// crdKind returns the kind under its name in projectcalico.org/v3.
func crdKind(version, kind string) Kind {
	if version == CRDVersion && kind == "IPAMConfig" {
		return KindIPAMConfiguration
	}
	return Kind(kind)
}

// Resources finds the objects in one parsed document, looking into lists as calicoctl and kubectl print them. What is
// of no concern to Caracal gives nothing. The problems are those that belong to no object because its kind or name is
// not known.
func Resources(doc *yaml.Node) ([]Resource, []cluster.Problem) {
	d := &documentReader{}
	d.read(content(doc), 0)
	return d.resources, d.problems
}

// content steps from a document node to what it holds.
func content(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.DocumentNode {
		if len(n.Content) == 0 {
			return nil
		}
		return n.Content[0]
	}
	return n
}

type documentReader struct {
	resources []Resource
	problems  []cluster.Problem
}

func (d *documentReader) problem(n *yaml.Node, object, field, text string) {
	d.problems = append(d.problems, cluster.Problem{Object: object, Field: field, Text: text, Line: n.Line})
}

// maxListNesting bounds lists of lists; calicoctl prints a List of IPPoolLists.
const maxListNesting = 3

func (d *documentReader) read(n *yaml.Node, depth int) {
	if n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, "document", "", "is not a resource: write apiVersion, kind, metadata and spec, or move the file elsewhere")
		return
	}
	version, kind := text(Field(n, "apiVersion")), text(Field(n, "kind"))
	items := Field(n, "items")
	if strings.HasSuffix(kind, "List") && items != nil && ours(version) {
		if items.Kind == yaml.SequenceNode && depth < maxListNesting {
			for _, item := range items.Content {
				d.read(deref(item), depth+1)
			}
		}
		return
	}
	if d.identify(n, version, kind) {
		d.resource(n, crdKind(version, kind))
	}
}

func ours(version string) bool {
	return version == APIVersion || version == CRDVersion || version == CoreVersion || version == DiscoveryVersion
}

// identify reports whether a mapping is a resource that is read, and why not if it should be.
func (d *documentReader) identify(n *yaml.Node, version, kind string) bool {
	name := strings.TrimSpace(kind + " " + text(Field(Field(n, "metadata"), "name")))
	switch {
	case version == "" && kind == "":
		d.problem(n, "document", "kind", "is missing: write apiVersion: "+APIVersion+" and the kind of the resource")
		return false
	case kind == "":
		if strings.Contains(version, "projectcalico.org/") {
			d.problem(n, "document", "kind", "is missing: write the kind of the resource, as in kind: IPPool")
		}
		return false
	}
	known, exact := knownKind(crdKind(version, kind))
	switch {
	case known == "":
		return false
	case known == KindConfigMap:
		return version == CoreVersion && exact && text(Field(Field(n, "metadata"), "name")) == ConfigMapName
	case WatchedOnly(known): // Kubernetes', so what is wrong with its frame is not for us to tell
		return version == VersionOf(known) && exact && text(Field(Field(n, "metadata"), "name")) != ""
	case known == KindSecret:
		return version == CoreVersion && exact && readsSecrets(text(Field(Field(n, "metadata"), "namespace")))
	case version == APIVersion || version == CRDVersion:
		if !exact {
			d.problem(n, name, "kind", "is spelled "+kind+": write "+string(known))
		}
		return exact
	case version == "":
		d.problem(n, name, "apiVersion", "is missing: write "+APIVersion)
	case strings.Contains(version, "projectcalico.org"):
		d.problem(n, name, "apiVersion", version+" is not known: write "+APIVersion)
	}
	return false // somebody else's kind, such as Kubernetes' own Node
}

// knownKind finds a kind that is read, whatever the case of its letters.
func knownKind(kind Kind) (known Kind, exact bool) {
	for _, k := range Kinds() {
		if strings.EqualFold(string(k), string(kind)) {
			return k, k == kind
		}
	}
	return "", false
}

func (d *documentReader) resource(n *yaml.Node, kind Kind) {
	name := Field(Field(n, "metadata"), "name")
	if name == nil || name.Kind != yaml.ScalarNode || name.Value == "" || name.Tag == "!!null" {
		d.problem(n, string(kind), "metadata.name", "is missing: write a name")
		return
	}
	obj, problems := Decode(n, kind)
	d.resources = append(d.resources, Resource{Kind: kind, Name: obj.Meta().Name, Node: n, Object: obj, Problems: problems})
}

// nameIn returns the name of an object in its mapping, with its namespace where that belongs to it.
func nameIn(n *yaml.Node, kind Kind) string {
	meta := Field(n, "metadata")
	name := text(Field(meta, "name"))
	if !WatchedOnly(kind) || name == "" {
		return name
	}
	return FullName(text(Field(meta, "namespace")), name)
}

// Field returns the value of a key of a mapping, or nil.
func Field(n *yaml.Node, key string) *yaml.Node {
	_, value := entry(n, key)
	return value
}

// entry returns a key of a mapping and its value, or nil.
func entry(n *yaml.Node, key string) (name, value *yaml.Node) {
	n = deref(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], deref(n.Content[i+1])
		}
	}
	return nil, nil
}

// LineOf returns the line of a field ("spec.bgp.ipv4Address"), or of the nearest field around it that exists.
func LineOf(n *yaml.Node, field string) int {
	n = content(n)
	if n == nil {
		return 0
	}
	line := n.Line
	for key := range strings.SplitSeq(field, ".") {
		key, _, _ = strings.Cut(key, "[")
		name, value := entry(n, key)
		if name == nil {
			break
		}
		line, n = name.Line, value
	}
	return line
}

func deref(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || isNull(n) {
		return ""
	}
	return n.Value
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
