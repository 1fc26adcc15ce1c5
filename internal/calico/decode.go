package calico

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Decode reads an object of a kind from its mapping. It is not yaml.Node.Decode because a wrong type must be told with
// the path of its field, and must not keep the rest from being read. The kind must be one that New knows.
func Decode(n *yaml.Node, kind Kind) (Object, []cluster.Problem) {
	obj, ok := New(kind)
	if !ok {
		panic("decode: unknown kind " + string(kind)) // the caller's mistake: Resources never asks for one
	}
	name := nameIn(n, kind)
	d := &decoder{object: ObjectName(kind, name), budget: maxValues}
	d.value(n, reflect.ValueOf(obj).Elem(), "")
	obj.Meta().Name = name // also where it should have been quoted
	return obj, d.problems
}

// maxValues bounds the values in one object, so that a few aliases to aliases cannot blow up into millions. The largest
// block has 4,096 addresses, each with an entry in four lists and up to ten attributes.
const maxValues = 200_000

type decoder struct {
	object   string
	problems []cluster.Problem
	budget   int
}

func (d *decoder) problem(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, cluster.Problem{Object: d.object, Field: path, Text: fmt.Sprintf(format, args...), Line: n.Line})
}

// value reads a YAML value into a Go value. Null, and what has the wrong type, leaves the zero value.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	n = deref(n)
	if d.budget--; d.budget < 0 {
		if d.budget == -1 {
			d.problem(n, path, "has too many values: write the object without aliases")
		}
		return
	}
	if isNull(n) {
		return
	}
	if v.Kind() != reflect.Pointer {
		if u, ok := v.Addr().Interface().(yaml.Unmarshaler); ok {
			if err := u.UnmarshalYAML(n); err != nil {
				d.problem(n, path, "%v", err)
			}
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		d.pointer(n, v, path)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.sequence(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// pointer sets a pointer only to what could be read; of fields within fields, the good ones stay.
func (d *decoder) pointer(n *yaml.Node, v reflect.Value, path string) {
	p := reflect.New(v.Type().Elem())
	before := len(d.problems)
	d.value(n, p.Elem(), path)
	if len(d.problems) == before || n.Kind == yaml.MappingNode {
		v.Set(p)
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if t, ok := v.Addr().Interface().(*time.Time); ok {
		d.time(n, t, path)
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must hold fields (name: value), not %s", describe(n))
		return
	}
	seen := make([]bool, v.NumField())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			d.problem(key, child(path, "<<"), "merge keys are not supported: write the fields out")
			continue
		}
		f := fieldNamed(v.Type(), key.Value)
		if f < 0 {
			continue // somebody else's field
		}
		if seen[f] {
			d.problem(key, child(path, key.Value), "is written twice: leave one of them out")
			continue
		}
		seen[f] = true
		d.value(value, v.Field(f), child(path, key.Value))
	}
}

// fieldNamed returns the index of the field with a name in YAML, or -1.
func fieldNamed(t reflect.Type, name string) int {
	for i := range t.NumField() {
		tag := t.Field(i).Tag.Get("yaml")
		if strings.HasPrefix(tag, name) && (len(tag) == len(name) || tag[len(name)] == ',') {
			return i
		}
	}
	return -1
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must hold names and values, not %s", describe(n))
		return
	}
	m := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := reflect.ValueOf(n.Content[i].Value)
		if m.MapIndex(key).IsValid() {
			d.problem(n.Content[i], child(path, n.Content[i].Value), "is written twice: leave one of them out")
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], e, child(path, n.Content[i].Value))
		m.SetMapIndex(key, e)
	}
	v.Set(m)
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n, path, "must be a list, not %s", describe(n))
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		if isNull(item) {
			continue // most entries of most blocks: do not build a path for them
		}
		d.value(item, s.Index(i), path+"["+strconv.Itoa(i)+"]")
	}
	v.Set(s)
}

func (d *decoder) time(n *yaml.Node, t *time.Time, path string) {
	v, err := time.Parse(time.RFC3339, n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.problem(n, path, "%q is not a time: write it as in 2026-01-31T12:00:00Z (RFC 3339)", n.Value)
		return
	}
	*t = v
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.problem(n, path, "must be a single value, not %s", describe(n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		if n.Tag != "!!str" && n.Tag != "!!timestamp" {
			d.problem(n, path, "must be a string: write it in quotes, as in %q", n.Value)
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		b, ok := boolean(n)
		if !ok {
			d.problem(n, path, "%q is not a boolean: write true or false", n.Value)
			return
		}
		v.SetBool(b)
	case reflect.Int:
		i, err := strconv.Atoi(n.Value)
		if err != nil || n.Tag != "!!int" {
			d.problem(n, path, "%q is not a whole number: write digits without quotes", n.Value)
			return
		}
		v.SetInt(int64(i))
	case reflect.Uint64:
		u, err := strconv.ParseUint(n.Value, 10, 64)
		if err != nil || n.Tag != "!!int" && n.Tag != "!!float" { // YAML resolves numbers above 2^63 as floats
			d.problem(n, path, "%q is not a whole number: write digits without quotes", n.Value)
			return
		}
		v.SetUint(u)
	default:
		panic("decode: no rule for " + v.Type().String()) // a field was added to this package without one
	}
}

// boolean reads true and false, and the words YAML 1.1 had for them, which Calico's tools still read.
func boolean(n *yaml.Node) (value, ok bool) {
	if n.Tag == "!!bool" {
		b, err := strconv.ParseBool(strings.ToLower(n.Value))
		return b, err == nil
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		return false, false
	}
	switch strings.ToLower(n.Value) {
	case "y", "yes", "on":
		return true, true
	case "n", "no", "off":
		return false, true
	}
	return false, false
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

func child(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
