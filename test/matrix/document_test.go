package matrix

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

var update = flag.Bool("update", false, "write the table of docs/interop.md")

// The table is between these lines of the document.
const (
	tableBegins = "<!-- table: go test ./test/matrix -run TestDocument -args -update -->\n"
	tableEnds   = "<!-- end of table -->\n"
)

// TestDocument: the document has the table that is run, and what it says is tried elsewhere is there.
func TestDocument(t *testing.T) {
	root, err := need.Repository()
	must(t, err)
	file := filepath.Join(root, "docs", "interop.md")
	data, err := os.ReadFile(file)
	must(t, err)
	before, rest, begins := strings.Cut(string(data), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", file)
	}
	want := before + tableBegins + document(rules(), sides()) + tableEnds + after
	if *update {
		must(t, os.WriteFile(file, []byte(want), 0o644))
	} else if want != string(data) {
		t.Errorf("docs/interop.md is not what is run: go test ./test/matrix -run TestDocument -args -update")
	}
	for _, r := range rules() {
		if (r.run != nil) == (r.alone != nil) && r.elsewhere == "" {
			t.Errorf("%s: no test, or two", r.name)
		}
		for name := range strings.SplitSeq(r.elsewhere, ", ") {
			if r.elsewhere != "" && !exists(t, root, name) {
				t.Errorf("%s: there is no %s", r.name, name)
			}
		}
		for s := range r.cannot {
			if !slices.Contains(sides(), s) {
				t.Errorf("%s: no column %s", r.name, s)
			}
		}
	}
}

// exists looks for a test, "package: Test".
func exists(t *testing.T, root, name string) bool {
	t.Helper()
	pkg, test, _ := strings.Cut(name, ": ")
	files, err := filepath.Glob(filepath.Join(root, "test", pkg, "*_test.go"))
	must(t, err)
	is := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(test) + `\(`)
	return slices.ContainsFunc(files, func(f string) bool {
		data, err := os.ReadFile(f)
		must(t, err)
		return is.Match(data)
	})
}

// heads are the columns' names for people.
var heads = map[peers.Kind]string{peers.BIRD2: "BIRD 2", peers.BIRD1: "BIRD 1.6", peers.FRR: "FRR", peers.GoBGP: "GoBGP", peers.OpenBGPD: "OpenBGPD"}

// document writes the table, and a note for each reason.
func document(rules []rule, sides []side) string {
	var b, lines strings.Builder
	var notes []string
	note := func(text string) string {
		i := slices.Index(notes, text)
		if i < 0 {
			i = len(notes)
			notes = append(notes, text)
		}
		return fmt.Sprintf(" (%d)", i+1)
	}
	b.WriteString("| rule |")
	for _, s := range sides {
		b.WriteString(" " + heads[s.kind] + map[bool]string{true: ", mesh"}[s.mesh] + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(sides)) + "\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "| %s |", r.name)
		for _, s := range sides {
			cell := "yes"
			if why := r.cannot[s]; why != "" {
				cell = "-" + note(why)
			} else if how := r.differs[s.kind]; how != "" {
				cell += note(how)
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
		where := ""
		if r.elsewhere != "" {
			where = " (" + r.elsewhere + ")"
		}
		fmt.Fprintf(&lines, "- **%s**: %s%s\n", r.name, r.says, where)
	}
	b.WriteString("\n" + lines.String() + "\n")
	for i, n := range notes {
		fmt.Fprintf(&b, "%d. %s\n", i+1, n)
	}
	return b.String()
}
