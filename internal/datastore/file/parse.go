package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// document is what one document says. It is immutable, and the same one as long as the text is the same, wherever in
// the file it stands: lines count from the document's beginning.
type document struct {
	sum       [sha256.Size]byte
	resources []resource
	stray     []cluster.Problem // of no object: no kind, no name
	broken    *cluster.Problem  // not YAML at all; then text is kept
	text      string
}

// resource is one object in a document.
type resource struct {
	datastore.Key
	line     int
	word     any
	problems []cluster.Problem
}

// parse reads the text of one document.
func parse(text []byte, isJSON bool) *document {
	return parseSum(text, sha256.Sum256(text), isJSON)
}

func parseSum(text []byte, sum [sha256.Size]byte, isJSON bool) *document {
	d := &document{sum: sum}
	if blank(text) {
		return d
	}
	node, problem := parseTree(text, isJSON)
	if problem != nil {
		d.broken, d.text = problem, string(text)
		return d
	}
	found, stray := calico.Resources(node)
	d.stray = stray
	for i := range found {
		r := &found[i]
		word, problems := r.Word()
		d.resources = append(d.resources, resource{Key: datastore.Key{Kind: r.Kind, Name: r.Name}, line: r.Node.Line, word: word, problems: problems})
	}
	return d
}

// parseTree reads the text of one document into a tree of nodes.
func parseTree(text []byte, isJSON bool) (*yaml.Node, *cluster.Problem) {
	if isJSON {
		node, err := parseJSON(text)
		if err != nil {
			return nil, jsonProblem(text, err)
		}
		return node, nil
	}
	node := &yaml.Node{}
	if err := yaml.Unmarshal(text, node); err != nil {
		return nil, yamlProblem(text, err)
	}
	return node, nil
}

func jsonProblem(text []byte, err error) *cluster.Problem {
	line := 1 + bytes.Count(text, []byte("\n"))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line = 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte("\n"))
	}
	return syntaxProblem(text, line, "is not JSON: "+err.Error())
}

func yamlProblem(text []byte, err error) *cluster.Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, what, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, message = n, what
		}
		switch {
		case what == "did not find expected key" || what == "did not find expected '-' indicator":
			line = firstBad(text, what)
		case strings.HasPrefix(what, "did not find expected"):
			line++ // the library counts the lines of these from 0
		}
	}
	return syntaxProblem(text, line, "is not YAML: "+message)
}

// firstBad returns the first line with which a text cannot be parsed. The library tells where the block begins that the
// line is in, which may be a page above it.
func firstBad(text []byte, message string) int {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return 1 + sort.Search(len(lines)-1, func(i int) bool {
		err := yaml.Unmarshal(bytes.Join(lines[:i+1], nil), &yaml.Node{})
		return err != nil && strings.HasSuffix(err.Error(), message)
	})
}

// syntaxProblem names what can be known of a text that cannot be parsed: by its indentation.
func syntaxProblem(text []byte, line int, what string) *cluster.Problem {
	object, name := "document", ""
	if m := kindLine.FindSubmatch(text); m != nil {
		object = string(m[1])
		if m := nameLine.FindSubmatch(text); m != nil {
			name = " " + string(m[1])
		}
	}
	return &cluster.Problem{
		Object: object + name, Field: fieldAt(text, line), Line: line,
		Text: what + ": mend this line or the one before it; what the document said before stays in effect",
	}
}

var (
	kindLine  = regexp.MustCompile(`(?m)^\s*"?kind"?:\s*"?([A-Za-z]+)`)
	nameLine  = regexp.MustCompile(`(?m)(?:^\s+|[{,]\s*)"?name"?:\s*["']?([\w.-]+)`)
	fieldLine = regexp.MustCompile(`^(\s*)"?([\w./-]+)"?\s*:`)
)

// fieldAt returns the path of the field on a line, made of the lines above it that are indented less.
func fieldAt(text []byte, line int) string {
	lines := bytes.SplitN(text, []byte("\n"), line+1)
	var path []string
	indent := -1
	for i := min(line, len(lines)) - 1; i >= 0 && indent != 0; i-- {
		m := fieldLine.FindSubmatch(lines[i])
		if m == nil || indent >= 0 && len(m[1]) >= indent {
			continue
		}
		indent = len(m[1])
		path = append([]string{string(m[2])}, path...)
	}
	return strings.Join(path, ".")
}

// ours reports whether a document that cannot be parsed looks like one that would be read.
func ours(text string) bool {
	return strings.Contains(text, "projectcalico.org") || strings.Contains(text, calico.ConfigMapName)
}
