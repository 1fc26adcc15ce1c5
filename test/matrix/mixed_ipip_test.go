package matrix

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/test/need"
)

// encapsulated are the pools of TestMixedMeshIPIP: both modes of IPIP, and beside them VXLAN, which BIRD announces and never programs, and IPv6, for
// which there is no IPIP.
func encapsulated() []pool {
	return []pool{
		{"always", netip.MustParsePrefix("10.65.0.0/16"), "Always", "Never"},
		{"cross", netip.MustParsePrefix("10.66.0.0/16"), "CrossSubnet", "Never"},
		{"vxlan", netip.MustParsePrefix("10.67.0.0/16"), "Never", "Always"},
		{"v6", netip.MustParsePrefix("fd00:65::/32"), "Never", "Never"},
	}
}

// TestMixedMeshIPIP: nodes of ours and of BIRD as Calico configures it in two subnets, with IPIP (see tunnels for what stands in for Calico's patch of
// BIRD, and felix for Felix). The kernels of both kinds lead to the same blocks by the same gateways, devices and flags, packets have the encapsulation of
// their pool in both directions, and not one is lost while nodes of either kind are killed, BIRD's become ours one after the other, and BIRD's again. Pods of
// calico-node are killed without a grace period, as its DaemonSet has it; a BIRD that is asked to end withdraws its routes. One node dies at a time: of two that
// restart at once neither waits for the other's End-of-RIB (RFC 4724 section 4.1).
func TestMixedMeshIPIP(t *testing.T) {
	need.IPIP(t)
	m := newMixed(t, 2, encapsulated())
	m.pace = 50 * time.Millisecond // 48 flows, on an emulated processor
	birds := []*member{m.members[1], m.members[3]}
	for _, x := range birds {
		m.felix(x)
		m.newTunnels(x)
	}
	m.start()
	m.up()
	m.routed()
	deleted, lost := m.deletions(), m.stream(m.members...)
	m.listen()
	m.reaches()

	still := func() {
		t.Helper()
		m.up()
		m.routed()
		m.reaches()
	}
	m.restart(syscall.SIGKILL, m.members[0])
	m.restart(syscall.SIGKILL, birds[0])
	m.restart(syscall.SIGTERM, m.members[0])
	for _, x := range birds {
		m.migrate(x)
		still()
	}
	for _, x := range birds {
		m.migrateBack(x)
		still()
	}
	if what := lost(); what != "" {
		t.Errorf("packets were lost: %s", what)
	}
	for _, x := range birds {
		must(t, x.tunnels.stop())
		t.Logf("%s: BIRD changed %d routes by a delete and an add", x.name, x.tunnels.changes)
		m.belongs(x)
	}
	for i, x := range m.members {
		if n := deleted[i](); n != 0 && x.tunnels == nil {
			t.Errorf("the kernel of %s lost routes to blocks of others %d times", x.name, n)
		}
	}
}

// belongs: a node that is BIRD's again has routes of BIRD's, none of ours, and BIRD has not been refused one.
func (m *mixed) belongs(x *member) {
	m.t.Helper()
	for _, family := range [...]string{"-4", "-6"} {
		ours, err := x.ns.Run("ip", family, "route", "show", "proto", "202")
		must(m.t, err)
		birds, err := x.ns.Run("ip", family, "route", "show", "proto", "bird")
		must(m.t, err)
		if strings.TrimSpace(ours) != "" || strings.Count(birds, " via ") == 0 {
			m.t.Errorf("%s is BIRD's, and has of ours\n%s\nand of BIRD's\n%s", x.name, ours, birds)
		}
	}
	if log := x.bird.Log(1000); strings.Contains(log, "Netlink") {
		m.t.Errorf("the kernel has refused something to BIRD on %s:\n%s", x.name, log)
	}
}

// migrate makes a node of BIRD one of ours, as when calico-node is deleted and the daemon started in its place.
func (m *mixed) migrate(x *member) {
	m.t.Helper()
	must(m.t, x.bird.Kill())
	must(m.t, x.tunnels.stop())
	x.was, x.bird = x.bird, nil
	x.caracald = nodeIn(m.t, x.name, x.ns)
	x.caracald.data = m.data
	x.caracald.start()
}

// migrateBack makes it a node of BIRD again, as docs/deploy.md says.
func (m *mixed) migrateBack(x *member) {
	m.t.Helper()
	x.caracald.end(syscall.SIGTERM)
	daemon, err := caracald.Path()
	must(m.t, err)
	out, err := x.ns.Run(daemon, "cleanup", "--leave-to-calico")
	if err != nil {
		m.t.Fatal(err, out)
	}
	x.caracald, x.bird = nil, x.was
	must(m.t, x.tunnels.start())
	must(m.t, x.bird.Restart(m.t.Context()))
}
