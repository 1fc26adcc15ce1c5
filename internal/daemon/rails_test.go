package daemon

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
	"github.com/caracal-net/caracal/internal/ipam"
)

// sized is a State that stands for a number of routes.
func sized(n int) *cluster.State {
	return cluster.Build(cluster.Objects{Nodes: []*cluster.Node{{Name: "n", ASN: uint32(n)}}})
}

// routesOf is the number that a State stands for.
func routesOf(st *cluster.State) int {
	if st == nil {
		return -1
	}
	return int(st.Node("n").ASN)
}

// lossOf counts as if every route of the smaller State were in the larger.
func lossOf(from, to *cluster.State) []loss {
	return []loss{{what: "routes", lost: max(0, routesOf(from)-routesOf(to)), of: routesOf(from)}}
}

// TestRails is the whole rule. Each step is what the datastore says at a moment, and how many routes are planned by then.
func TestRails(t *testing.T) {
	states := map[int]*cluster.State{} // one that says nothing new is the same one
	in := func(n int) datastore.Update {
		if states[n] == nil {
			states[n] = sized(n)
		}
		return datastore.Update{State: states[n], InSync: true}
	}
	away := func(n int) datastore.Update { u := in(n); u.Err = errors.New("away"); return u }
	suspect := func(n int) datastore.Update { u := in(n); u.Suspect = "it has gone back in time"; return u }
	kept := func(n, before int) datastore.Update {
		u := in(n)
		u.Kept, u.KeptAt = sized(before), time.Unix(1, 0)
		return u
	}
	stale := func(n int) datastore.Update {
		return datastore.Update{State: sized(n), Stale: time.Unix(1, 0), Err: errors.New("away")}
	}
	type step struct {
		at      time.Duration
		say     datastore.Update
		want    int
		release bool
		held    bool
	}
	for name, test := range map[string]struct {
		timeout time.Duration
		steps   []step
	}{
		"a node leaves, or all but one":    {0, []step{{0, in(1000), 1000, false, false}, {time.Second, in(900), 900, false, false}, {2 * time.Second, in(10), 10, false, false}}},
		"more than it had after an outage": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false}, {2 * time.Hour, in(2000), 2000, false, false}}},
		"a little less after an outage":    {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false}, {2 * time.Hour, in(700), 700, false, false}}},
		"few in number after an outage":    {0, []step{{0, in(100), 100, false, false}, {time.Hour, away(100), 100, false, false}, {2 * time.Hour, in(0), 0, false, false}}},
		"much less after an outage, until the doubt is over": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, in(600), 1000, false, true}, {2*time.Hour + 59*time.Second, in(600), 1000, false, true}, {2*time.Hour + time.Minute, in(600), 600, false, false}}},
		"little by little after an outage": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, in(800), 800, false, false}, {2*time.Hour + 5*time.Second, in(650), 800, false, true}, {2*time.Hour + 6*time.Second, in(900), 900, false, false}}},
		"more after an outage, then much less again": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, in(2000), 2000, false, false}, {2*time.Hour + 5*time.Second, in(1000), 2000, false, true}}},
		"much less, then whole": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, in(5), 1000, false, true}, {2*time.Hour + time.Second, in(990), 990, false, false}, {3 * time.Hour, in(10), 10, false, false}}},
		"away again while it is held": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, in(5), 1000, false, true}, {2*time.Hour + time.Second, away(5), 1000, false, true}, {3 * time.Hour, in(5), 1000, false, true}}},
		"much less while a part cannot be read, then all": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, away(5), 1000, false, true}, {2*time.Hour + time.Second, in(5), 1000, false, true}, {3 * time.Hour, in(5), 5, false, false}}},
		"a little less while a part cannot be read": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, away(900), 900, false, false}, {2*time.Hour + time.Second, away(650), 900, false, true}, {2*time.Hour + 2*time.Second, away(950), 950, false, false}}},
		"a part cannot be read for ever": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, away(900), 900, false, false}, {3 * time.Hour, away(5), 5, false, false}}},
		"much less of a part, for as long as the doubt": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, away(1000), 1000, false, false},
			{2 * time.Hour, away(5), 1000, false, true}, {2*time.Hour + 59*time.Second, away(5), 1000, false, true}, {2*time.Hour + time.Minute, away(5), 5, false, false}}},
		"a part cannot be read from the start": {0, []step{{0, away(1000), 1000, false, false}, {time.Second, away(5), 5, false, false}, {2 * time.Second, in(1000), 1000, false, false},
			{3 * time.Hour, in(5), 5, false, false}}},
		"a start with much less than was kept, of a part": {0, []step{{0, func() datastore.Update { u := kept(5, 1000); u.Err = errors.New("away"); return u }(), 1000, false, true}}},
		"suspect for as long as it takes": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, suspect(5), 1000, false, true}, {48 * time.Hour, suspect(5), 1000, false, true},
			{49 * time.Hour, in(5), 5, false, false}}},
		"suspect, but whole": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, suspect(999), 999, false, false}}},
		"released by hand": {0, []step{{0, in(1000), 1000, false, false}, {time.Hour, suspect(5), 1000, false, true}, {2 * time.Hour, suspect(5), 5, true, false},
			{3 * time.Hour, suspect(1000), 1000, false, false}, {4 * time.Hour, suspect(5), 1000, false, true}}},
		"released when nothing is held":        {0, []step{{0, in(1000), 1000, true, false}, {time.Hour, suspect(5), 1000, false, true}}},
		"by the timeout":                       {time.Hour, []step{{0, in(1000), 1000, false, false}, {time.Hour, suspect(5), 1000, false, true}, {2*time.Hour - time.Second, suspect(4), 1000, false, true}, {2 * time.Hour, suspect(4), 4, false, false}}},
		"a start with much less than was kept": {0, []step{{0, kept(5, 1000), 1000, false, true}, {time.Second, kept(6, 1000), 1000, false, true}, {2 * time.Second, kept(900, 1000), 900, false, false}}},
		"a start without memory":               {0, []step{{0, in(5), 5, false, false}}},
		"after a start from disk":              {0, []step{{0, stale(1000), 1000, false, false}, {time.Hour, in(5), 1000, false, true}, {2 * time.Hour, in(5), 5, false, false}}},
		"before the first word":                {0, []step{{0, datastore.Update{Err: errors.New("away")}, -1, false, false}, {time.Second, in(1000), 1000, false, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := rails{Rails: DefaultRails()}
			r.Timeout = test.timeout
			start := time.Unix(1e9, 0)
			for i, s := range test.steps {
				if s.release {
					r.release()
				}
				use, _ := r.judge(s.say, start.Add(s.at), lossOf)
				if got := routesOf(use.State); got != s.want || (r.held != nil) != s.held {
					t.Fatalf("step %d, after %v: %d routes, want %d; held: %v", i, s.at, got, s.want, r.held)
				}
				if !errors.Is(use.Err, s.say.Err) {
					t.Errorf("step %d: the datastore says %v, passed on is %v", i, s.say.Err, use.Err)
				}
			}
		})
	}
}

// TestRailsAskAgain: what time alone ends is looked at when it has ended, and States in doubt cost no more than five judgements a second, each
// against two States.
func TestRailsAskAgain(t *testing.T) {
	r := rails{Rails: DefaultRails()}
	now := time.Unix(1e9, 0)
	asked := 0
	count := func(from, to *cluster.State) []loss { asked++; return lossOf(from, to) }
	all := sized(1000)
	r.judge(datastore.Update{State: all, InSync: true}, now, count)
	r.judge(datastore.Update{State: all, InSync: true, Err: errors.New("away")}, now, count)
	short := datastore.Update{State: sized(5), InSync: true}
	_, next := r.judge(short, now, count)
	if want := now.Add(r.Window); !next.Equal(want) {
		t.Errorf("asks again at %v, want %v", next, want)
	}
	if use, next := r.judge(short, next, count); routesOf(use.State) != 5 || !next.IsZero() {
		t.Errorf("then %d routes, and again at %v", routesOf(use.State), next)
	}
	asked = 0
	for i := range 1000 { // ten seconds of a State each hundredth
		u := datastore.Update{State: sized(1000 + i), InSync: true, Suspect: "doubt"}
		use, next := r.judge(u, now.Add(time.Hour+time.Duration(i)*10*time.Millisecond), count)
		if use.State != u.State && next.IsZero() {
			t.Fatalf("State %d is forgotten", i)
		}
		r.judge(u, now.Add(time.Hour+time.Duration(i)*10*time.Millisecond), count) // for another reason, such as a learned path
	}
	if asked < 90 || asked > 110 {
		t.Errorf("%d judgements in ten seconds", asked)
	}
}

// TestLosses counts what both kinds of owners would lose.
func TestLosses(t *testing.T) {
	c, _ := newSample()
	c.setHost(sampleHost())
	c.setUpdate(datastore.Update{State: sampleState(cluster.BackendBird, true), InSync: true})
	c.plan(c.take())
	c.learn()
	none := cluster.Build(cluster.Objects{Nodes: []*cluster.Node{sampleState("", true).Node("a")}, Backend: cluster.BackendBird})
	got := fmt.Sprint(words(c.losses(sampleState(cluster.BackendBird, true), none, sampleHost())))
	const want = "[2 of 2 routes of owner vxlan 1 of 1 routes of owner bgp 2 of 2 announced prefixes]"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
	o := sampleState(cluster.BackendBird, true).Objects()
	o.Nodes = o.Nodes[:1]
	if got := c.losses(sampleState(cluster.BackendBird, true), cluster.Build(o), sampleHost())[0]; got.lost != 1 || got.of != 2 { // the other is our own block
		t.Errorf("blocks whose node is gone: %v", got.String())
	}
	if l := c.losses(cluster.Build(o), cluster.Build(o), sampleHost())[0]; l.of != 1 {
		t.Errorf("blocks without a node: %v", l.String())
	}
	if l := c.losses(sampleState(cluster.BackendBird, true), sampleState(cluster.BackendBird, false), sampleHost()); l != nil {
		t.Errorf("without our own node the last plan stays, and %v is lost", l)
	}
	for _, l := range c.losses(sampleState(cluster.BackendBird, true), sampleState(cluster.BackendBird, true), sampleHost()) {
		if l.lost != 0 || l.of == 0 {
			t.Errorf("nothing differs: %v", l)
		}
	}
}

// TestHeldStateAsksForNoAddresses: what the rails hold back reaches the tunnel addresses only when it is released; and what was asked before is not
// done while a State is held.
func TestHeldStateAsksForNoAddresses(t *testing.T) {
	c, _ := newSample()
	c.rails.Least = 0
	pools := -1
	c.inForce = func(st *cluster.State, _ cluster.Backend) { pools = len(st.Pools()) }
	c.setHost(sampleHost())
	none := cluster.Build(cluster.Objects{Nodes: sampleState("", true).Nodes(), Backend: cluster.BackendBird})
	d := &daemon{controller: c}
	ensure := d.ensureTunnels(&ipam.Client{Store: datastoretest.NewMemory(), Node: "a"})
	for i, s := range []struct {
		say     datastore.Update
		release bool
		want    int
		left    bool
	}{
		{datastore.Update{State: sampleState(cluster.BackendBird, true), InSync: true}, false, 2, false},
		{datastore.Update{State: none, InSync: true, Suspect: "it has gone back in time"}, false, 2, true},
		{datastore.Update{State: none, InSync: true, Suspect: "it has gone back in time"}, true, 0, false},
	} {
		c.setUpdate(s.say)
		if s.release {
			c.Release()
		}
		c.plan(c.take())
		err := ensure(t.Context())
		if left := errors.Is(err, errHeld); pools != s.want || left != s.left {
			t.Errorf("step %d: addresses are asked for by %d pools, want %d; left as they are: %v, %v", i, pools, s.want, left, err)
		}
	}
}

func words(all []loss) (out []string) {
	for i := range all {
		out = append(out, all[i].String())
	}
	return out
}
