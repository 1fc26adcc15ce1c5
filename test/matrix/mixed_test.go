package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// TestMixedMesh: nodes of ours and of BIRD 1.6 are one mesh. They know each other's blocks with the same metric, workloads reach each other, a
// block that comes and goes does so everywhere, and a node of either kind that dies and comes back loses no route of anybody's.
func TestMixedMesh(t *testing.T) {
	t.Parallel()
	m := newMixed(t, 1, plain())
	m.start()
	m.up()
	m.routed()
	m.reaches()

	for _, x := range m.members[:2] { // one of each kind gets a second block, and loses it
		m.block(x, 1)
		m.changed(x)
		m.routed()
		m.unblock(x)
		m.changed(x)
		m.routed()
	}

	deleted, lost := m.deletions(), m.stream(m.members...)
	m.restart(syscall.SIGKILL, m.members[0])
	m.restart(syscall.SIGKILL, m.members[1])
	m.restart(syscall.SIGTERM, m.members[0])
	if what := lost(); what != "" {
		t.Errorf("packets were lost over restarts: %s", what)
	}
	for i, x := range m.members {
		if n := deleted[i](); n != 0 {
			t.Errorf("the kernel of %s lost routes to blocks of others %d times", x.name, n)
		}
	}

	must(t, m.members[3].bird.Stop()) // which says so: its blocks go
	gone := m.members[3]
	was := gone.blocks
	gone.blocks = make([][]netip.Prefix, len(m.pools))
	m.members = m.members[:3]
	for _, x := range m.members {
		eventually(t, "the blocks of "+gone.name+" go", func(context.Context) error {
			for f := range was {
				if out, err := routeOf(x.ns, was[f][0].String()); err != nil || strings.TrimSpace(out) != "" {
					return fmt.Errorf("%s has %q, %w", x.name, out, err)
				}
			}
			return nil
		})
	}
	m.members, gone.blocks = append(m.members, gone), was
	must(t, gone.bird.Restart(t.Context()))
	m.up()
	m.routed()
	m.reaches()
}

// restart has what runs on these members die at once, and come back.
func (m *mixed) restart(s syscall.Signal, members ...*member) {
	m.t.Helper()
	for _, x := range members {
		if x.bird != nil {
			must(m.t, x.bird.Kill())
		} else {
			x.caracald.end(s)
		}
	}
	m.reaches() // over what the kernels have, before anybody is back
	for _, x := range members {
		if x.bird != nil {
			must(m.t, x.bird.Restart(m.t.Context()))
		} else {
			x.caracald.start()
		}
	}
	m.up()
	m.routed()
}

// TestMixedReflectors: the same nodes with one of them as route reflector, of either kind. Everybody's routes lead to the node that announces them, not to the
// reflector; a block of a client comes and goes everywhere; the reflector or a client that dies and comes back costs no packet; and back to a mesh.
func TestMixedReflectors(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"caracald", "bird1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMixed(t, 1, plain())
			m.start()
			m.up()
			reflect := func(x *member) {
				m.reflector = x
				m.changed(m.members...)
				m.up()
				m.routed()
				m.reaches()
			}
			reflect(m.members[i])

			client := m.members[2+i] // of the same kind
			m.block(client, 1)
			m.changed(client)
			m.routed()
			m.unblock(client)
			m.changed(client)
			m.routed()

			senders := m.members
			if m.reflector.bird != nil { // what a BIRD keeps of another BIRD that restarts is between the two
				senders = []*member{m.members[0], m.members[1], m.members[2]}
			}
			lost := m.stream(senders...)
			m.restart(syscall.SIGKILL, m.reflector)
			m.restart(syscall.SIGKILL, m.members[1-i], m.members[3-i]) // clients of the other kind
			if what := lost(); what != "" {
				t.Errorf("packets were lost over restarts: %s", what)
			}
			reflect(nil)
		})
	}
}
