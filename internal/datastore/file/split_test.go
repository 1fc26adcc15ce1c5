package file

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string // text of each document that is not blank
		lines      []int
	}{
		{"empty", "", nil, nil},
		{"one", "a: 1\n", []string{"a: 1\n"}, []int{1}},
		{"no newline at the end", "a: 1", []string{"a: 1"}, []int{1}},
		{"two", "a: 1\n---\nb: 1\n", []string{"a: 1\n", "b: 1\n"}, []int{1, 3}},
		{"leading mark and comment", "# x\n---\n\na: 1\n--- \n# y\n", []string{"\na: 1\n"}, []int{3}},
		{"directive", "%YAML 1.2\n---\na: 1\n...\n---\nb: 1", []string{"a: 1\n", "b: 1"}, []int{3, 6}},
		{"on the line of the mark", "--- {a: 1}\n--- # c\nb: 1\n", []string{" {a: 1}\n", " # c\nb: 1\n"}, []int{1, 2}},
		{"CRLF", "a: 1\r\n---\r\nb: 1\r\n", []string{"a: 1\r\n", "b: 1\r\n"}, []int{1, 3}},
		{"not a mark", "a: |\n  ---\n  x\n----\n", []string{"a: |\n  ---\n  x\n----\n"}, []int{1}},
		{"inside quotes", "a: \"x\n---\ny\"\n", []string{"a: \"x\n", "y\"\n"}, []int{1, 3}},
	} {
		var got []string
		var lines []int
		for _, c := range split([]byte(test.text)) {
			if text := test.text[c.start:c.end]; !blank([]byte(text)) {
				got, lines = append(got, text), append(lines, c.line)
			}
		}
		if !slices.Equal(got, test.want) || !slices.Equal(lines, test.lines) {
			t.Errorf("%s: %q at %v, want %q at %v", test.name, got, lines, test.want, test.lines)
		}
	}
}

// Chunks are in order, do not overlap, and what is between them are boundary lines.
func FuzzSplit(f *testing.F) {
	f.Add("a: 1\n---\nb: 2\n...\n--- c\n")
	f.Fuzz(func(t *testing.T, text string) {
		at := 0
		for i, c := range split([]byte(text)) {
			if c.start < at || c.end < c.start {
				t.Fatalf("chunk %+v after %d", c, at)
			}
			if between := text[at:c.start]; (i > 0) != boundary([]byte(between)) && !(c.inline && between == "---") {
				t.Fatalf("%q between two documents", between)
			}
			if want := 1 + strings.Count(text[:c.start], "\n"); c.line != want && c.start < len(text) {
				t.Fatalf("line %d, want %d", c.line, want)
			}
			at = c.end
		}
		if at != len(text) {
			t.Fatalf("%d of %d bytes", at, len(text))
		}
	})
}

func TestSyntaxProblems(t *testing.T) {
	const head = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: p\nspec:\n"
	for _, test := range []struct {
		name, text         string
		line               int
		object, field, msg string
	}{
		{"colon", head + "  cidr: 10.0.0.0/8: x\n", 6, "IPPool p", "spec.cidr", "is not YAML: mapping values are not allowed in this context"},
		{"quote", head + "  cidr: '10.0.0.0/8\n", 6, "IPPool p", "spec.cidr", "is not YAML: found unexpected end of stream"},
		{"list", head + "  allowedUses: [a, b\n", 6, "IPPool p", "spec.allowedUses", "is not YAML: did not find expected ',' or ']'"},
		{"indentation", head + "  cidr: 10.0.0.0/8\n natOutgoing: true\n", 7, "IPPool p", "spec.natOutgoing", "is not YAML: did not find expected key"},
		{"tab", head + "\tcidr: 10.0.0.0/8\n", 6, "IPPool p", "spec.cidr", "is not YAML: found character that cannot start any token"},
		{"no colon", head + "  cidr\n  natOutgoing: true\n", 7, "IPPool p", "spec.natOutgoing", "is not YAML: mapping values are not allowed in this context"},
		{"binary", "\x00\x01", 1, "document", "", "is not YAML: control characters are not allowed"},
	} {
		d := parse([]byte(test.text), false)
		if d.broken == nil {
			t.Errorf("%s: parsed", test.name)
			continue
		}
		if p := d.broken; p.Line != test.line || p.Object != test.object || p.Field != test.field || !strings.HasPrefix(p.Text, test.msg+": mend") {
			t.Errorf("%s: %+v", test.name, p)
		}
	}
	d := parse([]byte("{\n\t\"kind\": \"IPPool\",\n\t\"metadata\": {\"name\": \"p\"},\n\t\"spec\": {,}\n}"), true)
	if p := d.broken; p == nil || p.Line != 4 || p.Object != "IPPool p" || p.Field != "spec" || !strings.HasPrefix(p.Text, "is not JSON: invalid character ','") {
		t.Errorf("%+v", p)
	}
	d = parse([]byte("{\n\t\"apiVersion\":\t\"projectcalico.org/v3\", \"kind\": \"Node\",\n\t\"metadata\": {\"name\": \"n\", \"labels\": {\"a\": \"\\/\"}}}"), true)
	if d.broken != nil || len(d.resources) != 1 || len(d.resources[0].problems) > 0 {
		t.Errorf("%+v", d)
	}
	for text, line := range map[string]int{"": 1, "{\n": 2, "{}\n\n{}": 1} {
		if d := parse([]byte(text+" "), true); text != "" && (d.broken == nil || d.broken.Line < line) {
			t.Errorf("%q: %+v", text, d.broken)
		}
	}
}

func TestJSONThereAndBack(t *testing.T) {
	const text = `{
  "apiVersion": "projectcalico.org/v3",
  "a": [1, 2.5, -3e9, true, null, "x\"\u00e9<\t😀", {}, []]
}
`
	n, err := parseJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out, err := writeJSON(n)
	if err != nil {
		t.Fatal(err)
	}
	var was, is any
	if err := errors.Join(json.Unmarshal([]byte(text), &was), json.Unmarshal(out, &is)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(was, is) || n.Content[3].Line != 3 {
		t.Errorf("line %d\n%s", n.Content[3].Line, out)
	}
}
