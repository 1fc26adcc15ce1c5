package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// What the scenario's annotation names: who may be elected, and the failure domain.
const (
	mayLabel  = "may-reflect"
	zoneLabel = "zone"
)

// stepPatience is how long one step may take: ten seconds for which reflectors go on for former clients, and what a slow machine makes of them.
const stepPatience = time.Minute

// electing keeps the clusters in which two of three zones have a reflector.
func electing(s Spec) (bool, string) {
	switch {
	case !s.Kubernetes:
		return false, "needs an API server for its datastore: nodes are cordoned and cut off from it"
	case s.Mode != NoEncapsulation && s.Mode != IPIP && s.Mode != IPIPCrossSubnet:
		return false, "its routes do not come from BGP"
	case s.Nodes < 6:
		return false, "needs six nodes or more: two in each of three zones"
	}
	return true, ""
}

// elections is one run of the scenario.
type elections struct {
	*run
	store datastore.Store
	first []string // who was elected first
}

// electionStep is one thing that happens to a mesh that elects, and what must come of it on every node.
type electionStep struct {
	what string
	do   func(ctx context.Context) error
	want func(elected []string) error
	// gone is a node that is in the cluster no more after the step; deaf are those that do not hear of it.
	gone string
	// back is a node that is in the cluster again: what it had learned had gone with its sessions.
	back string
	deaf []string
	// restarts says that daemons restart in it, so that sessions begin anew.
	restarts bool
}

// elect plays what may happen to the reflectors of a mesh that elects them. No packet may be lost, no kernel may lose a route, every node must find the same
// reflectors, at once and for good, and no session may begin anew that leads from and to nodes whose parts have not changed.
func elect(ctx context.Context, r *run) error {
	store, err := r.Store()
	if err != nil {
		return err
	}
	e := &elections{run: r, store: store}
	for i, n := range r.Plan.Nodes {
		if err := e.label(ctx, n.Name, map[string]any{mayLabel: "", zoneLabel: fmt.Sprintf("zone-%d", i/2)}); err != nil {
			return err
		}
	}
	above := len(r.Plan.Members()) - 2
	if err := e.step(ctx, electionStep{what: "reflectors are elected", want: e.some, do: func(ctx context.Context) error {
		return e.settings(ctx, fmt.Sprintf("above=%d,count=2,zone=%s,selector=has(%s)", above, zoneLabel, mayLabel))
	}}); err != nil {
		return err
	}
	steps := e.steps(above)
	if n := r.opts.Elections; n > 0 {
		steps = append(steps[:n:n], steps[len(steps)-1])
	}
	for _, s := range steps {
		if err := e.step(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// steps are what happens to the first of those who were elected first.
func (e *elections) steps(above int) []electionStep {
	rr, other := e.first[0], ""
	zone := 0
	for i, n := range e.Plan.Nodes {
		if n.Name == rr {
			zone = i / 2
		}
	}
	for i, n := range e.Plan.Nodes {
		if i/2 == zone && n.Name != rr {
			other = n.Name
		}
	}
	var deaf []string
	for _, n := range e.Plan.Nodes {
		if !slices.Contains(e.first, n.Name) && n.Name != other {
			deaf = []string{rr, n.Name}
		}
	}
	var belongs []calico.Object
	var restore func()
	may := func(node string, yes bool) func(context.Context) error {
		return func(ctx context.Context) error {
			return e.label(ctx, node, map[string]any{mayLabel: map[bool]any{true: "", false: nil}[yes]})
		}
	}
	deleted := func(ctx context.Context) (err error) {
		belongs, _, err = belongings(ctx, e.store, rr)
		if err == nil {
			err = remove(ctx, e.store, belongs[0])
		}
		return err
	}
	created := func(ctx context.Context) error {
		belongs[0].Meta().UID, belongs[0].Meta().ResourceVersion = "", ""
		_, err := e.store.Create(ctx, belongs[0])
		return err
	}
	return []electionStep{
		{what: "a reflector is cordoned", do: e.cordon(rr, true), want: e.not(rr)},
		{what: "its daemon restarts", do: e.restart(rr), want: e.not(rr), restarts: true},
		{what: "it is uncordoned", do: e.cordon(rr, false), want: e.as(e.first)},
		{what: "it is drained", do: e.drain(rr), want: e.not(rr)},
		{what: "its drained daemon restarts", do: e.restart(rr), want: e.not(rr), restarts: true},
		{what: "it is undrained", do: e.undrain(rr), want: e.as(e.first)},
		{what: "it may reflect no more", do: may(rr, false), want: e.not(rr)},
		{what: "nor may its zone", do: may(other, false), want: e.not(rr, other)},
		{what: "its zone may again", do: func(ctx context.Context) error { return errors.Join(may(other, true)(ctx), may(rr, true)(ctx)) }, want: e.as(e.first)},
		{what: "it may no more, which it and another node do not hear", deaf: deaf, want: e.not(rr), do: func(ctx context.Context) (err error) {
			restore = e.forwards.cut(e.Plan.Node(deaf[0]).NS, e.Plan.Node(deaf[1]).NS)
			return may(rr, false)(ctx)
		}},
		{what: "they hear it", want: e.not(rr), do: func(context.Context) error { restore(); return nil }},
		{what: "it may again", do: may(rr, true), want: e.as(e.first)},
		{what: "its Node is deleted", do: deleted, want: e.not(rr), gone: rr},
		{what: "its Node is back", do: created, want: e.as(e.first), back: rr},
		{what: "the threshold is nearer", want: e.as(e.first), do: func(ctx context.Context) error {
			return e.settings(ctx, fmt.Sprintf("above=%d,count=2,zone=%s,selector=has(%s)", above+1, zoneLabel, mayLabel))
		}},
		{what: "its Node is deleted, which leaves too few", do: deleted, want: e.as(nil), gone: rr},
		{what: "its Node is back, and there are enough", do: created, want: e.as(e.first), back: rr},
		{what: "nobody is elected any more", do: func(ctx context.Context) error { return e.settings(ctx, "off") }, want: e.as(nil)},
	}
}

// step does one thing under the probe and checks what came of it.
func (e *elections) step(ctx context.Context, s electionStep) error {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	keep := func(node string) bool { return node != s.gone && node != s.back }
	var leaving []netip.Prefix
	if s.gone != "" {
		var err error
		if _, leaving, err = belongings(ctx, e.store, s.gone); err != nil {
			return err
		}
	}
	before, err := e.parts(ctx)
	if err != nil {
		return err
	}
	_, err = e.probed(ctx, "while "+s.what, e.Endpoints(keep), lossless, func() error {
		return e.guardedBut(ctx, s.back, leaving, func() error {
			began := time.Now()
			if err := s.do(ctx); err != nil {
				return err
			}
			if err := e.agreed(ctx, &s); err != nil {
				return errors.Join(err, e.why(ctx))
			}
			e.note(s.what+": done everywhere after", "%s", ms(time.Since(began)))
			return nil
		})
	})
	if err == nil && !s.restarts {
		err = e.calm(ctx, before)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	return nil
}

// agreed waits until every node that hears has found the same reflectors and has its sessions with them.
func (e *elections) agreed(ctx context.Context, s *electionStep) error {
	hears := func(node string) bool { return node != s.gone && !slices.Contains(s.deaf, node) }
	members := 0
	for _, n := range e.Plan.Members() {
		if n.Name != s.gone {
			members++
		}
	}
	var mu sync.Mutex // guards all
	all := map[string]string{}
	err := e.eachMember(func(node string) error {
		if !hears(node) {
			return nil
		}
		var elected []string
		if err := poll(ctx, 20*time.Millisecond, func() (err error) {
			if elected, err = e.elected(ctx, node); err == nil {
				err = s.want(elected)
			}
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", node, err)
		}
		mu.Lock()
		all[strings.Join(elected, " ")] = node
		mu.Unlock()
		if len(s.deaf) > 0 { // who does not hear has no session with whom it should
			return e.sessionsWith(ctx, node, func(peer string) bool {
				return hears(peer) && (slices.Contains(elected, node) || slices.Contains(elected, peer))
			})
		}
		sessions := members - 1
		if len(elected) > 0 && !slices.Contains(elected, node) {
			sessions = len(elected)
		}
		return e.waitSessions(ctx, node, sessions)
	})
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("nodes disagree on who is elected: %v", all)
	}
	for elected := range all {
		if e.first == nil {
			e.first = strings.Fields(elected)
		}
		e.note(s.what+": elected", "%s", elected)
	}
	return err
}

// sessionsWith waits until a node's sessions with some others are up, and have been for a while in which the others still do not hear.
func (e *elections) sessionsWith(ctx context.Context, node string, which func(peer string) bool) error {
	return poll(ctx, 20*time.Millisecond, func() error {
		peers, err := e.Peers(ctx, node)
		if err != nil {
			return err
		}
		for _, p := range peers {
			if which(p.GetNode()) && (p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED || time.Since(p.GetSince().AsTime()) < deafFor) {
				return fmt.Errorf("%s: session %s is %s since %s", node, p.GetName(), p.GetState(), p.GetSince().AsTime())
			}
		}
		return nil
	})
}

// deafFor is longer than former reflectors go on.
const deafFor = 15 * time.Second

// elected asks a node whom it has found.
func (e *elections) elected(ctx context.Context, node string) (out []string, err error) {
	err = e.ask(ctx, node, func(ctx context.Context, c caracalv1.InspectionClient) error {
		m, err := c.PlanBGP(ctx, &caracalv1.PlanBGPRequest{})
		inside := false
		for _, l := range m.GetLines() {
			name, is := strings.CutPrefix(l.GetText(), "  - node: ")
			inside = inside && is || strings.HasPrefix(l.GetText(), "routeReflectors:")
			if inside && is {
				out = append(out, name)
			}
		}
		return err
	})
	return out, err
}

// part is what a session is for, of one end, and since when it is up.
type part struct {
	source string
	since  time.Time
}

// parts returns every session that is up by its two ends.
func (e *elections) parts(ctx context.Context) (map[[3]string]part, error) {
	out := map[[3]string]part{}
	for _, n := range e.Plan.Members() {
		peers, err := e.Peers(ctx, n.Name)
		if err != nil {
			return nil, err
		}
		for _, p := range peers {
			if p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED {
				continue
			}
			family := map[bool]string{true: "6", false: "4"}[strings.Contains(p.GetAddress(), ":")]
			out[[3]string{n.Name, p.GetNode(), family}] = part{p.GetSource(), p.GetSince().AsTime()}
		}
	}
	return out, nil
}

// calm returns an error for a session that has begun anew though neither of its ends has another part than before.
func (e *elections) calm(ctx context.Context, before map[[3]string]part) (err error) {
	after, err := e.parts(ctx)
	kept, begun := 0, 0
	for k, was := range before {
		back := [3]string{k[1], k[0], k[2]}
		now, there := after[k]
		if !there || now.source != was.source || after[back].source != before[back].source {
			continue
		}
		kept++
		if !now.since.Equal(was.since) {
			begun++
			err = errors.Join(err, fmt.Errorf("session of %s with %s, IPv%s, %s, is up since %s, before since %s", k[0], k[1], k[2], now.source, now.since, was.since))
		}
	}
	e.note("ends of sessions whose parts stay, begun anew", "%d of %d", begun, kept)
	return err
}
