package peers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// bird2 is BIRD 2.x: one process for both families.
type bird2 struct{}

func (bird2) programs() []program {
	return []program{{"/usr/sbin/bird", "apt-get install bird2"}, {"/usr/sbin/birdc", "apt-get install bird2"}}
}

func (bird2) user() string { return "" }

func (bird2) commands(r *Router) []command {
	return []command{{
		name: "bird",
		args: birdArgs(r, "/usr/sbin/bird", "bird"),
		ready: func(ctx context.Context) error {
			_, err := birdc(ctx, r, "bird.ctl", "show status")
			return err
		},
	}}
}

// birdArgs is the command line of either version. -R is graceful restart recovery, which Calico asks for always.
func birdArgs(r *Router, program, name string) []string {
	args := []string{program, "-f", "-c", r.path(name + ".conf"), "-s", r.path(name + ".ctl"), "-P", r.path(name + ".pid")}
	if r.restarted {
		args = append(args, "-R")
	}
	return args
}

func (bird2) files(r *Router) map[string]string {
	c := &r.cfg
	var b strings.Builder
	fmt.Fprintf(&b, "log stderr all;\nrouter id %s;\nprotocol device {}\n", c.RouterID)
	b.WriteString("protocol direct { ipv4; ipv6; }\n")
	if every := c.bfd().Milliseconds(); every > 0 {
		timing := fmt.Sprintf("{ interval %d ms; multiplier 3; }", every)
		fmt.Fprintf(&b, "protocol bfd { interface \"*\" %s; multihop %s; }\n", timing, timing)
	}
	for _, f := range [...]struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"ipv6", true}} {
		export := "none"
		if c.Kernel {
			export = "where source = RTS_BGP"
		}
		fmt.Fprintf(&b, "protocol kernel kernel_%s { %s { import none; export %s; }; }\n", f.name, f.name, export)
		fmt.Fprintf(&b, "protocol static own_%s {\n\t%s;\n", f.name, f.name)
		for _, p := range c.Originate {
			if p.Addr().Is6() == f.v6 {
				fmt.Fprintf(&b, "\troute %s blackhole%s;\n", p, birdCommunities(c))
			}
		}
		b.WriteString("}\n")
	}
	for i := range c.Neighbours {
		birdSession(&b, c, i, 2)
	}
	return map[string]string{"bird.conf": b.String()}
}

// birdCommunities writes what is done to a static route for it to have the communities.
func birdCommunities(c *Config) string {
	if len(c.Communities) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(" {")
	for _, text := range c.Communities {
		attribute := "bgp_community"
		if large(text) {
			attribute = "bgp_large_community"
		}
		fmt.Fprintf(&b, " %s.add((%s));", attribute, strings.ReplaceAll(text, ":", ", "))
	}
	return b.String() + " }"
}

// birdSession writes a session the way Calico's templates do: multihop, next hops resolved through the table, next hop self.
func birdSession(b *strings.Builder, c *Config, i, version int) {
	n := &c.Neighbours[i]
	fmt.Fprintf(b, "protocol bgp peer%d {\n\tlocal %s as %d;\n\tneighbor %s as %d;\n", i, n.Local, c.ASN, n.Addr, n.ASN)
	if n.Port != 0 {
		fmt.Fprintf(b, "\tneighbor port %d;\n", n.Port)
	}
	if n.TTLSecurity {
		b.WriteString("\tdirect;\n\tttl security on;\n")
	} else if n.BFD != 0 && !n.BFDMultihop {
		b.WriteString("\tdirect;\n")
	} else {
		b.WriteString("\tmultihop;\n")
	}
	if n.BFD != 0 {
		fmt.Fprintf(b, "\tbfd %s;\n", map[bool]string{false: "on", true: "graceful"}[n.GracefulRestart > 0])
	}
	if n.Passive {
		b.WriteString("\tpassive on;\n")
	}
	if n.Shut {
		b.WriteString("\tdisabled;\n")
	}
	if n.Password != "" {
		fmt.Fprintf(b, "\tpassword %q;\n", n.Password)
	}
	if n.GracefulRestart > 0 {
		fmt.Fprintf(b, "\tgraceful restart on;\n\tgraceful restart time %d;\n", int(n.GracefulRestart.Seconds()))
	} else {
		b.WriteString("\tgraceful restart off;\n")
	}
	if n.HoldTime > 0 {
		fmt.Fprintf(b, "\thold time %d;\n\tkeepalive time %d;\n", int(n.HoldTime.Seconds()), int(n.HoldTime.Seconds())/3)
	}
	b.WriteString("\tconnect delay time 1;\n\tconnect retry time 2;\n\terror wait time 1, 2;\n\terror forget time 5;\n")
	indent := "\t"
	if version == 2 {
		fmt.Fprintf(b, "\tipv%c {\n", "46"[digit(n.Addr.Is6())])
		indent = "\t\t"
	}
	limit := ""
	if n.MaxPrefixes > 0 {
		limit = fmt.Sprintf("%simport limit %d action disable;\n", indent, n.MaxPrefixes)
	}
	hop := "next hop self"
	if n.IPv6NextHop.IsValid() {
		hop = fmt.Sprintf("extended next hop on;\n%snext hop address %s", indent, n.IPv6NextHop)
	}
	fmt.Fprintf(b, "%simport all;\n%sexport where source ~ [ RTS_STATIC, RTS_BGP ];\n%s%s;\n%sgateway recursive;\n%s", indent, indent, indent, hop, indent, limit)
	if version == 2 {
		b.WriteString("\t};\n")
	}
	b.WriteString("}\n")
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (bird2) reload(ctx context.Context, r *Router) error {
	out, err := birdc(ctx, r, "bird.ctl", "configure")
	return birdReloaded(out, err)
}

func birdReloaded(out string, err error) error {
	if err == nil && !strings.Contains(out, "Reconfigured") && !strings.Contains(out, "Reconfiguration in progress") {
		err = errors.New(out)
	}
	return err
}

// birdc runs one command of the control program.
func birdc(ctx context.Context, r *Router, socket string, words ...string) (string, error) {
	return r.query(ctx, "/usr/sbin/birdc", append([]string{"-s", r.path(socket)}, words...)...)
}

func (bird2) sessions(ctx context.Context, r *Router) ([]Session, error) {
	out, err := birdc(ctx, r, "bird.ctl", "show protocols all")
	if err != nil {
		return nil, err
	}
	return birdSessions(out), nil
}

// birdSessions reads "show protocols all". A protocol begins at the left margin, what belongs to it is indented.
func birdSessions(text string) []Session {
	var out []Session
	var s *Session
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case line[0] != ' ':
			s = nil
			if len(words) > 1 && words[1] == "BGP" {
				out = append(out, Session{})
				s = &out[len(out)-1]
			}
		case s == nil:
		default:
			s.birdLine(strings.TrimSpace(line), words)
		}
	}
	return out
}

// birdLine reads one indented line of a BGP protocol.
func (s *Session) birdLine(line string, words []string) {
	switch {
	case strings.HasPrefix(line, "BGP state:"):
		s.State = words[len(words)-1]
		s.Established = s.State == "Established"
	case strings.HasPrefix(line, "Neighbor address:"):
		addr, _, _ := strings.Cut(words[2], "%")
		s.Neighbour, _ = netip.ParseAddr(addr)
	case strings.HasPrefix(line, "Last error:"):
		s.LastError = strings.TrimSpace(strings.TrimPrefix(line, "Last error:"))
	case words[0] == "Routes:":
		for i := 1; i+1 < len(words); i++ {
			n, _ := strconv.Atoi(words[i])
			switch strings.TrimSuffix(words[i+1], ",") {
			case "imported":
				s.Received = n
			case "exported":
				s.Sent = n
			}
		}
	}
}

func (bird2) paths(ctx context.Context, r *Router, p netip.Prefix) ([]Path, error) {
	out, err := birdc(ctx, r, "bird.ctl", "show route", p.String(), "all")
	if err != nil && !strings.Contains(err.Error(), "Network not found") {
		return nil, err
	}
	return birdPaths(out, p), nil
}

// birdPaths reads "show route P all" of either version: a line for each path, its attributes indented below.
func birdPaths(text string, p netip.Prefix) []Path {
	var out []Path
	for line := range strings.Lines(text) {
		switch {
		case strings.Contains(line, "[") && !strings.HasPrefix(strings.TrimSpace(line), "BGP."):
			out = append(out, Path{Prefix: p, Best: strings.Contains(line, "* (")})
		case len(out) > 0 && strings.HasPrefix(strings.TrimSpace(line), "BGP."):
			out[len(out)-1].birdAttribute(strings.TrimPrefix(strings.TrimSpace(line), "BGP."))
		}
	}
	return out
}

func (p *Path) birdAttribute(line string) {
	name, value, _ := strings.Cut(line, ":")
	words := strings.Fields(value)
	switch name {
	case "as_path":
		for _, w := range words {
			p.ASPath = append(p.ASPath, number(w))
		}
	case "next_hop":
		if len(words) > 0 {
			p.NextHop, _ = netip.ParseAddr(words[0])
		}
	case "local_pref":
		p.LocalPref = number(strings.TrimSpace(value))
	case "med":
		p.MED = number(strings.TrimSpace(value))
	case "community":
		for _, w := range words { // (64512,1)
			p.Communities = append(p.Communities, strings.ReplaceAll(strings.Trim(w, "()"), ",", ":"))
		}
	case "large_community": // (64512, 1, 2) (64512, 1, 3)
		for _, w := range strings.SplitAfter(value, ")") {
			if w = strings.Trim(strings.TrimSpace(w), "()"); w != "" {
				p.Large = append(p.Large, strings.ReplaceAll(w, ", ", ":"))
			}
		}
	}
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}
