package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// openbgpd is OpenBGPD's portable edition, which on Linux has no way to the kernel's routes.
type openbgpd struct{}

// dirOpenBGPD is the home of its user, into which it locks itself and which systemd would make; it must be there, root's, and empty.
const dirOpenBGPD = "/run/openbgpd"

func (openbgpd) programs() []program {
	return []program{{"/usr/sbin/bgpd", "apt-get install openbgpd"}, {"/usr/sbin/bgpctl", "apt-get install openbgpd"}}
}

func (openbgpd) user() string { return "" }

func (openbgpd) commands(r *Router) []command {
	_ = os.MkdirAll(dirOpenBGPD, 0o755) // where it fails bgpd says so
	return []command{{"bgpd", []string{"/usr/sbin/bgpd", "-d", "-v", "-f", r.path("bgpd.conf")}, func(ctx context.Context) error {
		_, err := bgpctl(ctx, r, "show", "neighbor")
		return err
	}}}
}

func (openbgpd) files(r *Router) map[string]string {
	c := &r.cfg
	var b strings.Builder
	fmt.Fprintf(&b, "AS %d\nrouter-id %s\nfib-update no\nsocket %q\n", c.ASN, c.RouterID, r.path("bgpd.sock"))
	set := ""
	for _, text := range c.Communities {
		attribute := "community"
		if large(text) {
			attribute = "large-community"
		}
		set += " " + attribute + " " + text
	}
	if set != "" {
		set = " set {" + set + " }"
	}
	for _, p := range c.Originate {
		fmt.Fprintf(&b, "network %s%s\n", p, set)
	}
	for _, n := range c.Neighbours {
		n.openbgpd(&b)
	}
	b.WriteString("allow from any\nallow to any\n")
	return map[string]string{"bgpd.conf": b.String()}
}

func (n *Neighbour) openbgpd(b *strings.Builder) {
	fmt.Fprintf(b, "neighbor %s {\n\tremote-as %d\n\tannounce restart %s\n", n.Addr, n.ASN, yesNo(n.GracefulRestart > 0))
	for _, v6 := range []bool{false, true} {
		fmt.Fprintf(b, "\tannounce IPv%c %s\n", "46"[digit(v6)], map[bool]string{true: "unicast", false: "none"}[v6 == n.Addr.Is6()])
	}
	if n.Local.IsValid() {
		fmt.Fprintf(b, "\tlocal-address %s\n", n.Local)
	}
	if n.Port != 0 {
		fmt.Fprintf(b, "\tport %d\n", n.Port)
	}
	if n.Passive {
		b.WriteString("\tpassive\n")
	}
	if n.Shut {
		b.WriteString("\tdown\n")
	}
	if n.TTLSecurity {
		b.WriteString("\tttl-security yes\n")
	} else {
		b.WriteString("\tmultihop 64\n")
	}
	if n.Password != "" {
		fmt.Fprintf(b, "\ttcp md5sig password %q\n", n.Password)
	}
	if n.HoldTime > 0 {
		fmt.Fprintf(b, "\tholdtime %d\n", int(n.HoldTime.Seconds()))
	}
	if n.MaxPrefixes > 0 {
		fmt.Fprintf(b, "\tmax-prefix %d\n", n.MaxPrefixes)
	}
	b.WriteString("\tset nexthop self\n}\n")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func bgpctl(ctx context.Context, r *Router, words ...string) (string, error) {
	return r.query(ctx, "/usr/sbin/bgpctl", append([]string{"-s", r.path("bgpd.sock"), "-j"}, words...)...)
}

func (openbgpd) reload(ctx context.Context, r *Router) error {
	if _, err := bgpctl(ctx, r, "reload"); err != nil {
		return err
	}
	for i, n := range r.cfg.Neighbours { // which a new configuration leaves as it is
		if i < len(r.was.Neighbours) && r.was.Neighbours[i].Shut != n.Shut {
			if _, err := r.query(ctx, "/usr/sbin/bgpctl", "-s", r.path("bgpd.sock"), "neighbor", n.Addr.String(), map[bool]string{true: "down", false: "up"}[n.Shut]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (openbgpd) sessions(ctx context.Context, r *Router) ([]Session, error) {
	out, err := bgpctl(ctx, r, "show", "neighbor")
	if err != nil {
		return nil, err
	}
	var all struct {
		Neighbours []struct {
			Addr  string `json:"remote_addr"`
			State string `json:"state"`
			Error string `json:"last_error"`
			Sent  string `json:"last_error_sent"`
			Got   string `json:"last_error_received"`
			Stats struct {
				Prefixes struct{ Sent, Received int }
			}
		} `json:"neighbors"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("bgpctl: %w", err)
	}
	var sessions []Session
	for _, n := range all.Neighbours {
		addr, err := netip.ParseAddr(n.Addr)
		if err != nil {
			return nil, fmt.Errorf("bgpctl: %w", err)
		}
		sessions = append(sessions, Session{Neighbour: addr, Established: n.State == "Established", State: n.State,
			Received: n.Stats.Prefixes.Received, Sent: n.Stats.Prefixes.Sent, LastError: strings.TrimSpace(n.Error + " " + n.Sent + " " + n.Got)})
	}
	return sessions, nil
}

func (openbgpd) paths(ctx context.Context, r *Router, p netip.Prefix) ([]Path, error) {
	out, err := bgpctl(ctx, r, "show", "rib", "detail", p.String())
	if err != nil {
		return nil, err
	}
	var all struct {
		RIB []struct {
			Prefix      string
			ASPath      string `json:"aspath"`
			NextHop     string `json:"exit_nexthop"`
			Best        bool
			Metric      uint32
			LocalPref   uint32 `json:"localpref"`
			Communities []string
			Large       []string `json:"large_communities"`
		} `json:"rib"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("bgpctl: %w", err)
	}
	var paths []Path
	for _, f := range all.RIB {
		if f.Prefix != p.String() { // told of the covering prefix
			continue
		}
		path := Path{Prefix: p, LocalPref: f.LocalPref, MED: f.Metric, Best: f.Best, Communities: f.Communities, Large: f.Large}
		path.NextHop, _ = netip.ParseAddr(f.NextHop)
		for _, w := range strings.Fields(f.ASPath) {
			as, err := strconv.ParseUint(w, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("bgpctl: AS path %q", f.ASPath)
			}
			path.ASPath = append(path.ASPath, uint32(as))
		}
		paths = append(paths, path)
	}
	return paths, nil
}
