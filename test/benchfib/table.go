package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// results are the figures of every run by system and number of prefixes.
type results struct {
	order   []string
	runs    map[string]map[table][]figures
	skipped map[string]string
}

func (r *results) add(name string, t table, f figures) {
	if r.runs == nil {
		r.runs = map[string]map[table][]figures{}
	}
	if r.runs[name] == nil {
		r.runs[name] = map[table][]figures{}
		r.order = append(r.order, name)
	}
	r.runs[name][t] = append(r.runs[name][t], f)
}

func (r *results) skip(name, what string) {
	if r.skipped == nil {
		r.skipped = map[string]string{}
	}
	r.skipped[name] = what
}

// titles say what a row is to someone who has not read the program.
func title(name string) string {
	switch name {
	case "read":
		return "floor: TCP and parsing"
	case "write":
		return "floor: kernel writes"
	case "bare":
		return "floor: both"
	case "programmer":
		return "our programmer alone"
	}
	return name
}

func (r *results) print(out io.Writer, o *options) {
	fmt.Fprintf(out, "from the first UPDATE sent to the last notification of the kernel, best / median of %d\n\n", o.runs)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "system\tprefixes\tannounce all\tto caracald\tCPU\tnew next hop for all\tCPU\twithdraw all\tCPU\tresident\tfor 100,000 paths\tidle CPU")
	for _, t := range o.tables {
		for _, name := range r.order {
			r.row(w, name, t)
		}
		fmt.Fprintln(w, "\t\t\t\t\t\t\t\t\t\t\t")
	}
	_ = w.Flush()
	fmt.Fprintf(out, "one prefix withdrawn or announced, from the UPDATE to the kernel's notification, %d changes\n\n", o.changes)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "system\troutes behind it\tp50\tp99\tmost\tCPU for one")
	for _, name := range r.order {
		r.flapRow(w, name, 0, o.tables[0], func(f *figures) changes { return f.flapsBare })
		r.flapRow(w, name, o.largest().size(), o.largest(), func(f *figures) changes { return f.flapsDeep })
	}
	_ = w.Flush()
	for name, what := range r.skipped {
		fmt.Fprintf(out, "%s was not measured: missing %s\n", name, what)
	}
}

func (r *results) row(w io.Writer, name string, t table) {
	runs := r.runs[name][t]
	if len(runs) == 0 {
		return
	}
	best, median := bestAndMedian(runs, func(f *figures) time.Duration { return f.load.took })
	ratio := "-"
	if ours := r.runs["caracald"][t]; len(ours) > 0 {
		_, m := bestAndMedian(ours, func(f *figures) time.Duration { return f.load.took })
		ratio = fmt.Sprintf("%.2f", float64(median)/float64(m))
	}
	memory, paths, idle := "-", "-", "-"
	for _, f := range runs {
		if f.resident > 0 {
			memory = fmt.Sprintf("%d MiB", f.resident>>20)
		}
		if f.resident > 0 && t.size() >= 10_000 { // of fewer it is noise
			paths = fmt.Sprintf("%d MiB", (f.resident-f.empty)*100_000/int64(t.size())>>20)
		}
		if f.idle >= 0 {
			idle = fmt.Sprintf("%.2f %%", 100*f.idle)
		}
	}
	cpu := func(of func(*figures) phase) string {
		_, median := bestAndMedian(runs, func(f *figures) time.Duration { return of(f).cpu })
		return orNone(median)
	}
	load, move, withdraw := func(f *figures) phase { return f.load }, func(f *figures) phase { return f.move }, func(f *figures) phase { return f.withdraw }
	fmt.Fprintf(w, "%s\t%s\t%s / %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", title(name), t, milliseconds(best), milliseconds(median), ratio, cpu(load),
		both(runs, move), cpu(move), both(runs, withdraw), cpu(withdraw), memory, paths, idle)
}

func (r *results) flapRow(w io.Writer, name string, behind int, t table, of func(*figures) changes) {
	var took []time.Duration
	cpu := time.Duration(0)
	runs := r.runs[name][t]
	for i := range runs {
		c := of(&runs[i])
		took = append(took, c.took...)
		cpu = max(cpu, c.cpu)
	}
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", title(name), behind, milliseconds(took[len(took)/2]), milliseconds(took[len(took)*99/100]), milliseconds(took[len(took)-1]), orNone(cpu))
}

func both(runs []figures, of func(*figures) phase) string {
	best, median := bestAndMedian(runs, func(f *figures) time.Duration { return of(f).took })
	if median == 0 {
		return "-"
	}
	return milliseconds(best) + " / " + milliseconds(median)
}

func orNone(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return milliseconds(d)
}

// bestAndMedian of an even number of runs takes the mean of the two in the middle.
func bestAndMedian(runs []figures, of func(*figures) time.Duration) (best, median time.Duration) {
	if len(runs) == 0 {
		return 0, 0
	}
	var all []time.Duration
	for i := range runs {
		all = append(all, of(&runs[i]))
	}
	slices.Sort(all)
	return all[0], (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}
