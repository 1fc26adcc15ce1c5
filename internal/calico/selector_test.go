package calico

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestSelectors(t *testing.T) {
	labels := map[string]string{"rack": "r1", "zone": "us-west", "a.b/c_d-e": "x", "in": "in", "has": "y", "empty": ""}
	for sel, want := range map[string]bool{
		"":                                true,
		" \t":                             true,
		"all()":                           true,
		"all( )":                          true,
		"global()":                        true,
		"!all()":                          false,
		"!!all()":                         true,
		"has(rack)":                       true,
		"has( rack\t)":                    true,
		"!has(rack)":                      false,
		"has(absent)":                     false,
		"has(empty)":                      true,
		`rack == "r1"`:                    true,
		`rack=='r1'`:                      true,
		`rack == 'r2'`:                    false,
		`absent == ""`:                    false,
		`empty == ""`:                     true,
		`rack != 'r2'`:                    true,
		`rack != 'r1'`:                    false,
		`absent != 'x'`:                   true,
		`rack in {'r1', "r2"}`:            true,
		`rack in{'r2','r1',}`:             true,
		`rack in {}`:                      false,
		`rack not in {}`:                  true,
		`rack not  in {'r1'}`:             false,
		`rack notin {'r2'}`:               true,
		`absent in {'x'}`:                 false,
		`absent not in {'x'}`:             true,
		`zone contains 'wes'`:             true,
		`zone contains ""`:                true,
		`absent contains ""`:              false,
		`zone starts with "us-"`:          true,
		`zone starts  with 'west'`:        false,
		`zone ends with 'west'`:           true,
		`absent ends with ''`:             false,
		`a.b/c_d-e == 'x'`:                true,
		`in in {'in'}`:                    true,
		`has == 'y'`:                      true,
		`all != 'x'`:                      true,
		`rack == "r1" && zone == 'x'`:     false,
		`rack == "r1" || zone == 'x'`:     true,
		`has(x) && has(y) || has(rack)`:   true,
		`has(rack) || has(x) && has(y)`:   true,
		`(has(rack) || has(x)) && has(y)`: false,
		`!(has(x) || has(y))`:             true,
		`! has(x)&&!has(y)`:               true,
		`rack == "it's" || has(rack)`:     true,
	} {
		s, err := ParseSelector(sel)
		if err != nil {
			t.Errorf("%v", err)
		} else if s.Match(labels) != want {
			t.Errorf("%q is %v", sel, !want)
		}
	}
}

func TestSelectorErrors(t *testing.T) {
	for sel, want := range map[string]string{
		`rack`:                         `selector "rack", at the end: expected ==, !=, in, not in, contains, starts with or ends with behind the label rack`,
		`rack == r1`:                   `selector "rack == r1", at character 9: expected a value in quotes`,
		`rack == 'r1`:                  `selector "rack == 'r1", at character 9: the quote is not closed`,
		`has(rack`:                     `selector "has(rack", at the end: expected )`,
		`has()`:                        `selector "has()", at character 5: expected the name of a label`,
		`all() all()`:                  `selector "all() all()", at character 7: expected && or || or the end`,
		`all() &&`:                     `selector "all() &&", at the end: expected a label, has(), all(), global(), ! or (`,
		`rack in 'r1'`:                 `selector "rack in 'r1'", at character 9: expected {`,
		`rack in {'r1' 'r2'}`:          `selector "rack in {'r1' 'r2'}", at character 15: expected }`,
		`(all()`:                       `selector "(all()", at the end: expected )`,
		`rack starts 'r'`:              `selector "rack starts 'r'", at character 6: expected ==, !=, in, not in, contains, starts with or ends with behind the label rack`,
		`rack =! 'r'`:                  `selector "rack =! 'r'", at character 6: expected ==, !=, in, not in, contains, starts with or ends with behind the label rack`,
		"rack\n== 'r'":                 "selector \"rack\\n== 'r'\", at character 5: expected ==, !=, in, not in, contains, starts with or ends with behind the label rack",
		strings.Repeat("(", 600):       `selector "` + strings.Repeat("(", 600) + `", at character 514: more than 512 parentheses inside one another`,
		`has(x) || ! != 'y'`:           `selector "has(x) || ! != 'y'", at character 13: expected a label, has(), all(), global(), ! or (`,
		`projectcalico.org/name = 'x'`: `selector "projectcalico.org/name = 'x'", at character 24: expected ==, !=, in, not in, contains, starts with or ends with behind the label projectcalico.org/name`,
	} {
		if s, err := ParseSelector(sel); err == nil {
			t.Errorf("%q was read as %s", sel, s)
		} else if err.Error() != want {
			t.Errorf("%q:\n got %s\nwant %s", sel, err, want)
		}
	}
	var none *Selector
	if none.Match(nil) || none.IsAll() || none.UsesGlobal() {
		t.Error("a selector that could not be read matches")
	}
}

// expr is the naive model: a text and the truth of it, made together, with nothing parsed.
type expr struct {
	text  string
	truth bool
}

func randomExpr(r *rand.Rand, labels map[string]string, depth int) expr {
	words := []string{"a", "b", "ab", "", "has", "in"}
	pick := func() string { return words[r.IntN(len(words))] }
	blank := func() string { return []string{"", " ", "\t", "  "}[r.IntN(4)] }
	quoted := func(s string) string { q := []string{`"`, `'`}[r.IntN(2)]; return q + s + q }
	label := []string{"a", "b", "in", "has", "all"}[r.IntN(5)]
	have, ok := labels[label]
	v := pick()
	switch n := r.IntN(14); {
	case n < 3 && depth > 0:
		x, y := randomExpr(r, labels, depth-1), randomExpr(r, labels, depth-1)
		return expr{"(" + blank() + x.text + blank() + "&&" + blank() + y.text + ")", x.truth && y.truth}
	case n < 6 && depth > 0:
		x, y := randomExpr(r, labels, depth-1), randomExpr(r, labels, depth-1)
		return expr{"(" + x.text + "||" + blank() + y.text + blank() + ")", x.truth || y.truth}
	case n < 8 && depth > 0: // && binds closer than ||
		x, y, z := randomExpr(r, labels, depth-1), randomExpr(r, labels, depth-1), randomExpr(r, labels, depth-1)
		return expr{"(" + x.text + " || " + y.text + " && " + z.text + ")", x.truth || y.truth && z.truth}
	case n == 8 && depth > 0:
		x := randomExpr(r, labels, depth-1)
		return expr{"!" + blank() + x.text, !x.truth}
	case n == 9:
		return expr{"has(" + blank() + label + blank() + ")", ok}
	case n == 10:
		w := pick()
		in := ok && (have == v || have == w)
		set := "{" + blank() + quoted(v) + blank() + "," + quoted(w) + "}"
		if r.IntN(2) == 0 {
			return expr{label + " in" + blank() + set, in}
		}
		return expr{label + " not " + blank() + "in" + set, !in}
	case n == 11:
		return expr{label + blank() + "==" + blank() + quoted(v), ok && have == v}
	case n == 12:
		return expr{label + blank() + "!=" + blank() + quoted(v), !ok || have != v}
	}
	switch r.IntN(3) {
	case 0:
		return expr{label + " contains" + blank() + quoted(v), ok && strings.Contains(have, v)}
	case 1:
		return expr{label + " starts " + blank() + "with" + blank() + quoted(v), ok && strings.HasPrefix(have, v)}
	}
	return expr{label + " ends with " + quoted(v), ok && strings.HasSuffix(have, v)}
}

func TestSelectorAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	truths := 0
	for range 20_000 {
		labels := map[string]string{}
		for _, l := range []string{"a", "b", "in", "has", "all"} {
			if r.IntN(2) == 0 {
				labels[l] = []string{"a", "b", "ab", "", "in"}[r.IntN(5)]
			}
		}
		e := randomExpr(r, labels, 4)
		s, err := ParseSelector(e.text)
		if err != nil {
			t.Fatal(err)
		}
		if s.Match(labels) != e.truth {
			t.Fatalf("%s is not %v of %v", e.text, e.truth, labels)
		}
		again, err := ParseSelector(s.String())
		if err != nil || again.String() != s.String() || again.Match(labels) != e.truth {
			t.Fatalf("%s printed as %s: %v", e.text, s, err)
		}
		if e.truth {
			truths++
		}
	}
	if truths < 2000 || truths > 18_000 {
		t.Errorf("%d of 20,000 were true: the cases are too much alike", truths)
	}
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"", "all()", "!has(a)", `a == "b" && (c != 'd' || e in {"f"})`, "a starts with 'b'", "a not in {}"} {
		f.Add(s, "a", "b")
	}
	f.Fuzz(func(t *testing.T, text, label, value string) {
		s, err := ParseSelector(text)
		if err != nil {
			return
		}
		labels := map[string]string{label: value}
		again, err := ParseSelector(s.String())
		if err != nil {
			t.Fatalf("%q printed as %q: %v", text, s, err)
		}
		if s.Match(labels) != again.Match(labels) {
			t.Errorf("%q and %q differ on %v", text, s, labels)
		}
	})
}

func BenchmarkSelector(b *testing.B) {
	s, err := ParseSelector(`rack in {"r1", "r2"} && !has(edge) && zone starts with "us-"`)
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"rack": "r2", "zone": "us-west"}
	b.ReportAllocs()
	for b.Loop() {
		s.Match(labels)
	}
}
