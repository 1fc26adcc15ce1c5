package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// frr is FRRouting: zebra, which writes the kernel, and bgpd. There is no watchfrr and no mgmtd.
type frr struct{}

func (frr) programs() []program {
	return []program{{"/usr/lib/frr/zebra", "apt-get install frr"}, {"/usr/lib/frr/bgpd", "apt-get install frr"}, {"/usr/bin/vtysh", "apt-get install frr"}}
}

// user: FRR insists that whom it runs as is in the group of its control sockets, which root is not.
func (frr) user() string { return "frr" }

func (frr) commands(r *Router) []command {
	daemon := func(name string, more ...string) command {
		args := []string{"/usr/lib/frr/" + name, "-f", r.path(name + ".conf"), "-i", r.path(name + ".pid"), "-z", r.path("zserv.api"), "--vty_socket", r.dir,
			"-A", "127.0.0.1", "-P", "0", "-u", "frr", "-g", "frr"}
		return command{name, append(args, more...), func(ctx context.Context) error {
			_, err := vtysh(ctx, r, name, "show version")
			return err
		}}
	}
	if r.cfg.DialOnly {
		return []command{daemon("zebra"), daemon("bgpd", "-p", "0")}
	}
	if r.cfg.bfd() == 0 {
		return []command{daemon("zebra"), daemon("bgpd")}
	}
	return []command{daemon("zebra"), daemon("bfdd", "--bfdctl", r.path("bfdctl")), daemon("bgpd")}
}

func (frr) files(r *Router) map[string]string {
	c := &r.cfg
	var b strings.Builder
	const head = "frr defaults datacenter\nhostname peer\nlog stdout warnings\n"
	zebra := head
	if !c.Kernel {
		zebra += "route-map nothing deny 10\nip protocol bgp route-map nothing\nipv6 protocol bgp route-map nothing\n"
	}
	b.WriteString(head)
	frrCommunities(&b, c) // before what uses them: a map that is not there yet lets nothing out, until some seconds after it is
	frrNextHops(&b, c)
	fmt.Fprintf(&b, "router bgp %d\n bgp router-id %s\n no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n", c.ASN, c.RouterID)
	b.WriteString(" bgp log-neighbor-changes\n")
	for i := range c.Neighbours {
		c.Neighbours[i].frr(&b, c)
	}
	for _, f := range [...]struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"ipv6", true}} {
		fmt.Fprintf(&b, " address-family %s unicast\n", f.name)
		for _, p := range c.Originate {
			if p.Addr().Is6() == f.v6 {
				fmt.Fprintf(&b, "  network %s%s\n", p, map[bool]string{true: " route-map own"}[len(c.Communities) > 0])
			}
		}
		for _, n := range c.Neighbours {
			if n.Addr.Is6() != f.v6 {
				continue
			}
			fmt.Fprintf(&b, "  neighbor %s activate\n  neighbor %s next-hop-self\n", n.Addr, n.Addr)
			if f.v6 && n.Local.IsValid() {
				fmt.Fprintf(&b, "  neighbor %s route-map via-%s out\n", n.Addr, n.Local)
			}
			if n.MaxPrefixes > 0 {
				fmt.Fprintf(&b, "  neighbor %s maximum-prefix %d\n", n.Addr, n.MaxPrefixes)
			}
		}
		b.WriteString(" exit-address-family\n")
	}
	b.WriteString("exit\n")
	files := map[string]string{"zebra.conf": zebra, "bgpd.conf": b.String(), "vtysh.conf": "no service integrated-vtysh-config\n"}
	if every := c.bfd().Milliseconds(); every > 0 {
		files["bfdd.conf"] = head + fmt.Sprintf("bfd\n profile fast\n  detect-multiplier 3\n  receive-interval %d\n  transmit-interval %d\n exit\nexit\n", every, every)
	}
	return files
}

// frrNextHops writes the route maps by which a session's IPv6 next hop is the router's address at all times. By itself FRR announces an IPv4-mapped one, which
// nobody can use, where a link comes back and the IPv6 address is seen later than the IPv4 one; and it leaves it at that until the session is reset.
func frrNextHops(b *strings.Builder, c *Config) {
	for _, n := range c.Neighbours {
		if n.Local.Is6() {
			fmt.Fprintf(b, "route-map via-%s permit 10\n set ipv6 next-hop global %s\nexit\n", n.Local, n.Local)
		}
	}
}

// frrCommunities writes the route map of what the router originates.
func frrCommunities(b *strings.Builder, c *Config) {
	if len(c.Communities) == 0 {
		return
	}
	words := map[bool][]string{}
	for _, text := range c.Communities {
		words[large(text)] = append(words[large(text)], text)
	}
	b.WriteString("route-map own permit 10\n")
	for isLarge, attribute := range map[bool]string{false: "community", true: "large-community"} {
		if len(words[isLarge]) > 0 {
			fmt.Fprintf(b, " set %s %s\n", attribute, strings.Join(words[isLarge], " "))
		}
	}
	b.WriteString("exit\n")
}

func (n *Neighbour) frr(b *strings.Builder, c *Config) {
	line := func(format string, args ...any) {
		fmt.Fprintf(b, " neighbor %s %s\n", n.Addr, fmt.Sprintf(format, args...))
	}
	line("remote-as %d", n.ASN)
	if n.Local.IsValid() {
		line("update-source %s", n.Local)
	}
	if n.Port != 0 {
		line("port %d", n.Port)
	}
	line("timers connect 2")
	if n.HoldTime > 0 {
		line("timers %d %d", int(n.HoldTime.Seconds())/3, int(n.HoldTime.Seconds()))
	}
	if n.Passive {
		line("passive")
	}
	if n.Shut {
		line("shutdown")
	}
	if n.Password != "" {
		line("password %s", n.Password)
	}
	switch {
	case n.TTLSecurity:
		line("ttl-security hops 1")
	case n.BFD != 0 && !n.BFDMultihop: // BFD is for one hop unless the session is allowed more
	case !n.internal(c):
		line("ebgp-multihop 64")
	}
	if n.BFD != 0 {
		line("bfd profile fast")
		if n.GracefulRestart > 0 {
			line("bfd check-control-plane-failure")
		}
	}
	if n.GracefulRestart > 0 {
		fmt.Fprintf(b, " bgp graceful-restart restart-time %d\n bgp graceful-restart preserve-fw-state\n", int(n.GracefulRestart.Seconds()))
		line("graceful-restart")
	} else {
		line("graceful-restart-disable")
	}
}

// vtysh runs one command in one daemon.
func vtysh(ctx context.Context, r *Router, daemon, line string) (string, error) {
	return r.query(ctx, "/usr/bin/vtysh", "--config_dir", r.dir, "--vty_socket", r.dir, "-d", daemon, "-c", line)
}

// reload goes through the daemons one by one: vtysh adds and changes, but does not remove what the file no longer has. Of that only
// prefixes and words of neighbours are taken away here. It fails on lines about graceful restart while sessions are up, even if nothing changes.
func (frr) reload(ctx context.Context, r *Router) error {
	var b strings.Builder
	fmt.Fprintf(&b, "router bgp %d\n", r.cfg.ASN)
	for _, p := range r.was.Originate {
		if !slices.Contains(r.cfg.Originate, p) {
			fmt.Fprintf(&b, " address-family ipv%c unicast\n  no network %s\n exit-address-family\n", "46"[digit(p.Addr().Is6())], p)
		}
	}
	for i, n := range r.was.Neighbours {
		if i >= len(r.cfg.Neighbours) || r.cfg.Neighbours[i].Addr != n.Addr {
			return fmt.Errorf("another list of neighbours needs a restart")
		}
		if n.Password != "" && r.cfg.Neighbours[i].Password == "" {
			fmt.Fprintf(&b, " no neighbor %s password\n", n.Addr)
		}
		if n.Shut && !r.cfg.Neighbours[i].Shut {
			fmt.Fprintf(&b, " no neighbor %s shutdown\n", n.Addr)
		}
	}
	b.WriteString("exit\n")
	for line := range strings.Lines(r.system.files(r)["bgpd.conf"]) {
		if !strings.Contains(line, "graceful-restart") {
			b.WriteString(line)
		}
	}
	if err := os.WriteFile(r.path("change.conf"), []byte(b.String()), 0o600); err != nil {
		return err
	}
	for _, c := range r.system.commands(r) {
		file := c.name + ".conf"
		if c.name == "bgpd" {
			file = "change.conf"
		}
		if _, err := r.query(ctx, "/usr/bin/vtysh", "--config_dir", r.dir, "--vty_socket", r.dir, "-d", c.name, "-f", r.path(file)); err != nil {
			return err
		}
	}
	return nil
}

func (frr) sessions(ctx context.Context, r *Router) ([]Session, error) {
	out, err := vtysh(ctx, r, "bgpd", "show bgp neighbors json")
	if err != nil {
		return nil, err
	}
	return frrSessions([]byte(out))
}

// frrNeighbour is one neighbour of "show bgp neighbors json".
type frrNeighbour struct {
	State    string `json:"bgpState"`
	Reason   string `json:"lastResetDueTo"`
	Code     string `json:"lastErrorCodeSubcode"`
	Families map[string]struct {
		Received int `json:"acceptedPrefixCounter"`
		Sent     int `json:"sentPrefixCounter"`
	} `json:"addressFamilyInfo"`
}

func frrSessions(text []byte) ([]Session, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("vtysh: %w", err)
	}
	var out []Session
	for name, raw := range all {
		addr, err := netip.ParseAddr(name)
		if err != nil {
			continue // the name of the VRF
		}
		var n frrNeighbour
		if err := json.Unmarshal(raw, &n); err != nil {
			return nil, fmt.Errorf("vtysh: neighbour %s: %w", name, err)
		}
		s := Session{Neighbour: addr, State: n.State, Established: n.State == "Established", LastError: strings.TrimSpace(n.Reason + " " + n.Code)}
		for _, f := range n.Families {
			s.Received, s.Sent = s.Received+f.Received, s.Sent+f.Sent
		}
		out = append(out, s)
	}
	return out, nil
}

func (frr) paths(ctx context.Context, r *Router, p netip.Prefix) ([]Path, error) {
	out, err := vtysh(ctx, r, "bgpd", fmt.Sprintf("show bgp ipv%c unicast %s json", "46"[digit(p.Addr().Is6())], p))
	if err != nil {
		return nil, err
	}
	return frrPaths([]byte(out), p)
}

// frrPath is one path of "show bgp ipv4 unicast P json".
type frrPath struct {
	LocalPref uint32 `json:"locPrf"`
	MED       uint32 `json:"metric"`
	Best      struct {
		Overall bool `json:"overall"`
	} `json:"bestpath"`
	ASPath struct {
		Segments []struct {
			List []uint32 `json:"list"`
		} `json:"segments"`
	} `json:"aspath"`
	Community struct {
		List []string `json:"list"`
	} `json:"community"`
	Large struct {
		List []string `json:"list"`
	} `json:"largeCommunity"`
	NextHops []struct {
		IP    string `json:"ip"`
		Scope string `json:"scope"`
	} `json:"nexthops"`
}

func frrPaths(text []byte, p netip.Prefix) ([]Path, error) {
	var all struct {
		Prefix string    `json:"prefix"`
		Paths  []frrPath `json:"paths"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("vtysh: %w", err)
	}
	if all.Prefix != "" && all.Prefix != p.String() {
		return nil, errors.New("vtysh: asked for " + p.String() + ", told of " + all.Prefix)
	}
	var out []Path
	for _, f := range all.Paths {
		path := Path{Prefix: p, LocalPref: f.LocalPref, MED: f.MED, Best: f.Best.Overall, Communities: f.Community.List, Large: f.Large.List}
		for _, s := range f.ASPath.Segments {
			path.ASPath = append(path.ASPath, s.List...)
		}
		for _, h := range f.NextHops {
			if h.Scope != "link-local" {
				path.NextHop, _ = netip.ParseAddr(h.IP)
			}
		}
		out = append(out, path)
	}
	return out, nil
}
