package report

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// nation is a cluster of nodes, each with a Reporter, and what they have reported.
type nation struct {
	t         *testing.T
	reporters map[string]*Reporter

	mu      sync.Mutex
	reports []string // "node-3 IPPool a"
	at      []time.Duration
	events  map[string]time.Time // what there is an Event of, since when
	made    map[string]int       // how often it was made
	err     error
}

func newNation(t *testing.T, nodes int, away ...string) *nation {
	n := &nation{t: t, reporters: map[string]*Reporter{}, events: map[string]time.Time{}, made: map[string]int{}}
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		if slices.Contains(away, name) {
			continue
		}
		r := New(Options{Node: name, Report: func(_ context.Context, p cluster.Problem) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.reports, n.at = append(n.reports, name+" "+p.Object), append(n.at, time.Since(began))
			if since, there := n.events[p.Object]; n.err == nil && (!there || time.Since(since) > time.Hour) {
				n.events[p.Object] = time.Now()
				n.made[p.Object]++
			}
			return n.err
		}})
		n.reporters[name] = r
		done.Go(func() { _ = r.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); done.Wait() })
	return n
}

// say gives everybody a State with problems of these objects.
func (n *nation) say(nodes int, objects ...string) {
	o := cluster.Objects{}
	for i := range nodes {
		o.Nodes = append(o.Nodes, &cluster.Node{Name: fmt.Sprintf("node-%d", i)})
	}
	for _, object := range objects {
		o.Problems = append(o.Problems, cluster.Problem{Object: object, Field: "spec.cidr", Text: "is wrong"})
	}
	st := cluster.Build(o)
	for _, r := range n.reporters {
		r.SetState(st)
	}
}

// after waits and returns how many reports there were by then.
func (n *nation) after(d time.Duration) int {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.reports)
}

// TestOneOfMany: of a hundred nodes one reports at once, a few look after it, and the rest say nothing; as long as the problem lasts there is an Event,
// and when it is mended nobody reports any more.
func TestOneOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNation(t, 100)
		n.say(100, "IPPool a")
		if got := n.after(Settle - time.Second); got != 0 {
			t.Errorf("%d reports of what may be mended at once", got)
		}
		if got := n.after(2 * time.Second); got != 1 {
			t.Errorf("%d reports, want that of one", got)
		}
		if got := n.after(Turns * Turn); got != Turns {
			t.Errorf("%d reports, want %d", got, Turns)
		}
		n.say(100, "IPPool a") // nothing new
		if got := n.after(time.Minute); got != Turns {
			t.Errorf("%d reports, want no more", got)
		}
		if got := n.after(10 * time.Hour); got > Turns*13 {
			t.Errorf("%d reports in ten hours", got)
		}
		n.mu.Lock()
		if made, age := n.made["IPPool a"], time.Since(n.events["IPPool a"]); made < 9 || made > 10 || age > Again {
			t.Errorf("made %d times in ten hours, the last %v old", made, age)
		}
		n.mu.Unlock()
		n.say(100)
		was := n.after(0)
		if got := n.after(10 * time.Hour); got != was {
			t.Errorf("%d reports of what is mended", got-was)
		}
	})
}

// TestTheFirstIsAway: others take its turn.
func TestTheFirstIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		problem := cluster.Problem{Object: "IPPool a", Field: "spec.cidr", Text: "is wrong"}
		var nodes []*cluster.Node
		for i := range 20 {
			nodes = append(nodes, &cluster.Node{Name: fmt.Sprintf("node-%d", i)})
		}
		var away []string
		places := map[int]bool{}
		for _, node := range nodes {
			p := place(nodes, node.Name, &problem)
			if places[p] && p < Turns {
				t.Errorf("two nodes have place %d", p)
			}
			if places[p] = true; p < 2 {
				away = append(away, node.Name)
			}
		}
		if place(nodes, "stranger", &problem) < Turns {
			t.Error("a node that nobody knows has a turn")
		}
		n := newNation(t, 20, away...)
		n.say(20, "IPPool a")
		if got := n.after(2*Turn - time.Second); got != 0 {
			t.Errorf("%d reports before the third's turn", got)
		}
		if got := n.after(Settle + 2*time.Second); got != 1 {
			t.Errorf("%d reports in the third's turn", got)
		}
	})
}

// TestManyProblems: they are spread over the nodes, and no node reports faster than it may.
func TestManyProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNation(t, 10)
		var objects []string
		for i := range 200 {
			objects = append(objects, fmt.Sprintf("IPPool %d", i))
		}
		n.say(10, objects...)
		n.after(Again - 2*time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.made) != len(objects) {
			t.Errorf("%d Events of %d problems", len(n.made), len(objects))
		}
		last, count := map[string]time.Duration{}, map[string]int{}
		for i, report := range n.reports {
			var node string
			_, _ = fmt.Sscan(report, &node)
			if at, before := last[node]; before && n.at[i]-at < Spacing {
				t.Fatalf("%s reports at %v and %v", node, at, n.at[i])
			}
			last[node] = n.at[i]
			count[node]++
		}
		for node, c := range count {
			if c < 40 || c > 180 { // of a thousand, a tenth each
				t.Errorf("%s has reported %d problems", node, c)
			}
		}
	})
}

// TestReportFails: it is tried again, and told once.
func TestReportFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNation(t, 1)
		n.err = errors.New("away")
		n.say(1, "IPPool a")
		if got := n.after(10 * time.Minute); got < 5 || got > 15 {
			t.Errorf("tried %d times in ten minutes", got)
		}
		n.mu.Lock()
		n.err = nil
		n.mu.Unlock()
		n.after(2 * retry)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.made["IPPool a"] != 1 {
			t.Error("it was not reported in the end")
		}
	})
}

// TestFound: what only some nodes find is reported by them, none of which is anybody's first choice, at times that differ; what is mended is not.
func TestFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNation(t, 200)
		found := []cluster.Problem{{Object: "IPPool shared", Text: "two programmers"}}
		n.reporters["node-7"].SetFound(found) // before the first State
		n.say(200)
		for _, name := range []string{"node-8", "node-9"} {
			n.reporters[name].SetFound(found)
		}
		n.reporters["node-10"].SetFound(found)
		n.reporters["node-10"].SetFound(nil)
		time.Sleep(Settle + 200*Share + Again/2)
		synctest.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		slices.Sort(n.reports)
		if want := []string{"node-7 IPPool shared", "node-8 IPPool shared", "node-9 IPPool shared"}; !slices.Equal(n.reports, want) || n.made["IPPool shared"] != 1 {
			t.Errorf("reports %v, Events %v, want %v and one", n.reports, n.made, want)
		}
		if slices.Sort(n.at); n.at[0] < Settle || n.at[0] == n.at[1] || n.at[1] == n.at[2] || n.at[2] > Settle+200*Share+time.Second {
			t.Errorf("at %v", n.at)
		}
	})
}
