package calico

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Encode returns the mapping an object is written as.
func Encode(o Object) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	setField(n, "apiVersion", plain("!!str", VersionOf(o.Kind())))
	setField(n, "kind", plain("!!str", string(o.Kind())))
	Overlay(n, o)
	return n
}

// Overlay writes an object's fields into an existing mapping of it and leaves all else there as it is: fields that are
// not read, comments, order, and the style of values that do not change. A list that changes is written anew.
func Overlay(n *yaml.Node, o Object) {
	overlay(n, reflect.ValueOf(o).Elem())
	if WatchedOnly(o.Kind()) {
		namespace, name, _ := strings.Cut(o.Meta().Name, "/")
		SetScalar(n, name, "metadata", "name")
		SetScalar(n, namespace, "metadata", "namespace")
	}
}

// SetScalar sets the field at a path of keys to a string, making the mappings on the way; the empty string removes it.
// It reports whether anything changed.
func SetScalar(n *yaml.Node, value string, path ...string) bool {
	n = descend(n, value != "", path)
	if n == nil {
		return false
	}
	last := path[len(path)-1]
	if value == "" {
		return removeField(n, last)
	}
	if old := own(n, last); old != nil && old.Kind == yaml.ScalarNode {
		if old.Value == value {
			return false
		}
		*old = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: quoting(value), HeadComment: old.HeadComment, LineComment: old.LineComment, FootComment: old.FootComment}
		return true
	}
	setField(n, last, plain("!!str", value))
	return true
}

// SetValue is SetScalar for a value of any type this package writes; nil and an empty list remove the field.
func SetValue(n *yaml.Node, value any, path ...string) bool {
	v := reflect.ValueOf(value)
	keep := v.IsValid() && !empty(v)
	n = descend(n, keep, path)
	if n == nil {
		return false
	}
	last := path[len(path)-1]
	if !keep {
		return removeField(n, last)
	}
	next := overlay(nil, v)
	if old := own(n, last); old != nil && sameTree(old, next) {
		return false
	}
	setField(n, last, next)
	return true
}

// sameTree compares what two trees say, not how they are written.
func sameTree(a, b *yaml.Node) bool {
	a, b = deref(a), deref(b)
	return a.Kind == b.Kind && a.Tag == b.Tag && a.Value == b.Value && slices.EqualFunc(a.Content, b.Content, sameTree)
}

// descend returns the mapping that holds the last key of a path; where there is none it is made, or nil is returned.
func descend(n *yaml.Node, create bool, path []string) *yaml.Node {
	for _, key := range path[:len(path)-1] {
		next := own(n, key)
		if next == nil || next.Kind != yaml.MappingNode {
			if !create {
				return nil
			}
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			setField(n, key, next)
		}
		n = next
	}
	return n
}

// own returns the value of a key, replacing an alias by a copy, so that a change does not reach what it is an alias of.
func own(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		if v := n.Content[i+1]; v.Kind == yaml.AliasNode {
			n.Content[i+1] = clone(v.Alias)
		}
		return n.Content[i+1]
	}
	return nil
}

func clone(n *yaml.Node) *yaml.Node {
	c := *n
	c.Anchor = ""
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = clone(child)
	}
	return &c
}

func setField(n *yaml.Node, key string, value *yaml.Node) {
	if len(n.Content) == 0 {
		n.Style &^= yaml.FlowStyle // an empty {} becomes a block
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, plain("!!str", key), value)
}

func removeField(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return true
		}
	}
	return false
}

// overlay returns the node for a value, which is the old one wherever that is possible. old may be nil.
func overlay(old *yaml.Node, v reflect.Value) *yaml.Node {
	if old != nil && old.Kind == yaml.AliasNode {
		old = clone(old.Alias)
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return scalar(old, "!!timestamp", x.Format(time.RFC3339Nano))
	case StringBool:
		return overlayStringBool(old, x)
	case Duration:
		return scalar(old, "!!str", time.Duration(x).String())
	case ASNumber:
		return scalar(old, "!!int", strconv.FormatUint(uint64(x), 10))
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return scalar(old, "!!null", "null")
		}
		return overlay(old, v.Elem())
	case reflect.Struct:
		return overlayStruct(old, v)
	case reflect.Map:
		return overlayMap(old, v)
	case reflect.Slice:
		return overlaySlice(old, v)
	case reflect.String:
		return scalar(old, "!!str", v.String())
	case reflect.Bool:
		return scalar(old, "!!bool", strconv.FormatBool(v.Bool()))
	case reflect.Int:
		return scalar(old, "!!int", strconv.FormatInt(v.Int(), 10))
	case reflect.Uint64:
		return scalar(old, "!!int", strconv.FormatUint(v.Uint(), 10))
	}
	panic(fmt.Sprintf("encode: no rule for %s", v.Type())) // a field was added to this package without one
}

// overlayStringBool keeps the string that crd.projectcalico.org/v1 demands where it finds one.
func overlayStringBool(old *yaml.Node, b StringBool) *yaml.Node {
	tag := "!!bool"
	if old != nil && old.Tag == "!!str" {
		tag = "!!str"
	}
	return scalar(old, tag, strconv.FormatBool(bool(b)))
}

func overlayStruct(old *yaml.Node, v reflect.Value) *yaml.Node {
	n := container(old, yaml.MappingNode, "!!map")
	for i := range v.NumField() {
		name, opts, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		f := v.Field(i)
		if opts == "omitempty" && empty(f) {
			removeField(n, name)
			continue
		}
		setField(n, name, overlay(own(n, name), f))
	}
	return n
}

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	}
	return v.IsZero()
}

func overlayMap(old *yaml.Node, v reflect.Value) *yaml.Node {
	n := container(old, yaml.MappingNode, "!!map")
	for i := len(n.Content) - 2; i >= 0; i -= 2 {
		if !v.MapIndex(reflect.ValueOf(n.Content[i].Value)).IsValid() {
			n.Content = slices.Delete(n.Content, i, i+2)
		}
	}
	values := map[string]reflect.Value{}
	for k, e := range v.Seq2() {
		values[k.String()] = e
	}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		setField(n, k, overlay(own(n, k), values[k]))
	}
	if len(n.Content) == 0 {
		n.Style |= yaml.FlowStyle // {} is the only way to write it
	}
	return n
}

// overlaySlice writes numbers in one line: a block has four hundred of them.
func overlaySlice(old *yaml.Node, v reflect.Value) *yaml.Node {
	n := container(old, yaml.SequenceNode, "!!seq")
	if old == nil || v.Len() == 0 {
		n.Style = 0
		if e := v.Type().Elem(); v.Len() == 0 || e.Kind() == reflect.Int || e == reflect.TypeFor[*int]() {
			n.Style = yaml.FlowStyle
		}
	}
	before := n.Content
	n.Content = make([]*yaml.Node, v.Len())
	for i := range n.Content {
		var prev *yaml.Node
		if i < len(before) && before[i].Kind == yaml.ScalarNode {
			prev = before[i]
		}
		n.Content[i] = overlay(prev, v.Index(i))
	}
	return n
}

func container(old *yaml.Node, kind yaml.Kind, tag string) *yaml.Node {
	if old != nil && old.Kind == kind {
		return old
	}
	return &yaml.Node{Kind: kind, Tag: tag}
}

// scalar keeps the old node, with its quotes and comments, if its value is the same.
func scalar(old *yaml.Node, tag, value string) *yaml.Node {
	if old == nil || old.Kind != yaml.ScalarNode {
		return plain(tag, value)
	}
	if old.Value == value && (old.Tag == tag || tag == "!!timestamp") {
		return old
	}
	n := plain(tag, value)
	n.HeadComment, n.LineComment, n.FootComment = old.HeadComment, old.LineComment, old.FootComment
	return n
}

func plain(tag, value string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
	if tag == "!!str" {
		n.Style = quoting(value)
	}
	return n
}

// quoting puts quotes around what only YAML 1.1 takes for something else than a string; Calico's own tools read YAML
// 1.1. The YAML library takes care of the rest.
func quoting(s string) yaml.Style {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off":
		return yaml.DoubleQuotedStyle
	}
	if strings.Contains(s, ":") && strings.Trim(s, "0123456789:._+-") == "" { // a number to the base of 60
		return yaml.DoubleQuotedStyle
	}
	return 0
}
