package lab

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/inspect"
)

// printer writes lines and keeps the first error, so that a page of output is not a page of error checks.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// WritePicture draws the cluster as a tree: router, subnets, nodes, workloads with the pool of each address.
func (p *Plan) WritePicture(w io.Writer) error {
	out := &printer{w: w}
	out.line("cluster %s: %d nodes, mode %s, backend %s", p.Spec.Name, len(p.Nodes), p.Spec.Mode, p.Spec.Backend)
	for _, q := range p.Pools {
		out.line("  pool %-10s %-18s %s", q.Name, q.CIDR, q.encapsulation())
	}
	out.line("router")
	for i, s := range p.Subnets {
		tail := branch(i == len(p.Subnets)-1)
		out.line("%s%s %s", tail.head, s.Name, p.addresses(s.Addr4.Masked().String(), s.Addr6.Masked().String()))
		p.drawNodes(out, i, tail.rest)
	}
	return out.err
}

func (p *Plan) drawNodes(out *printer, subnet int, indent string) {
	var here []Node
	for _, n := range p.Nodes {
		if n.Subnet == subnet {
			here = append(here, n)
		}
	}
	for i, n := range here {
		node := branch(i == len(here)-1)
		out.line("%s%s%s %s", indent, node.head, n.Name, p.addresses(n.Addr4.Addr().String(), n.Addr6.Addr().String()))
		for j, w := range n.Workloads {
			var where []string
			for _, a := range w.Addrs {
				if q := p.PoolOf(a); q != nil {
					where = append(where, fmt.Sprintf("%s (%s)", a, q.encapsulation()))
				}
			}
			out.line("%s%s%s%s %s", indent, node.rest, branch(j == len(n.Workloads)-1).head, w.Name, strings.Join(where, ", "))
		}
	}
}

type twig struct{ head, rest string }

func branch(last bool) twig {
	if last {
		return twig{"└─ ", "   "}
	}
	return twig{"├─ ", "│  "}
}

// addresses joins the texts of those families the cluster uses.
func (p *Plan) addresses(v4, v6 string) string {
	var both []string
	if p.Spec.Family.Has(cluster.IPv4) {
		both = append(both, v4)
	}
	if p.Spec.Family.Has(cluster.IPv6) {
		both = append(both, v6)
	}
	return strings.Join(both, ", ")
}

func (q *Pool) encapsulation() string {
	if q.Encapsulation == cluster.NoEncapsulation {
		return "no encapsulation"
	}
	return fmt.Sprintf("%s %s", q.Encapsulation, q.Mode)
}

// WriteMatrix prints the shortest round trip of each pair in milliseconds, a table for each family.
func WriteMatrix(w io.Writer, r *ProbeReport) error {
	out := &printer{w: w}
	for _, f := range []cluster.Family{cluster.IPv4, cluster.IPv6} {
		of := r.Among(func(p Pair) bool { return cluster.FamilyOf(p.From.Addr) == f })
		if len(of.Pairs) == 0 {
			continue
		}
		out.line("ping, %s, round trip in milliseconds, row to column:", f)
		writeMatrix(out, of)
	}
	return out.err
}

func writeMatrix(out *printer, r *ProbeReport) {
	var names []string
	cells := map[[2]string]string{}
	for _, p := range r.Pairs {
		if len(names) == 0 || names[len(names)-1] != p.From.Name {
			names = append(names, p.From.Name)
		}
		cell := "lost"
		switch {
		case p.Lost == 0:
			cell = fmt.Sprintf("%.3f", float64(p.RTTMin.Microseconds())/1000)
		case p.Lost < p.Sent:
			cell = fmt.Sprintf("-%d/%d", p.Lost, p.Sent)
		}
		cells[[2]string{p.From.Name, p.To.Name}] = cell
	}
	width := 8
	for _, n := range names {
		width = max(width, len(n))
	}
	head := strings.Repeat(" ", width)
	for _, n := range names {
		head += fmt.Sprintf("  %*s", width, n)
	}
	out.line("%s", head)
	for _, from := range names {
		row := fmt.Sprintf("%-*s", width, from)
		for _, to := range names {
			cell := cells[[2]string{from, to}]
			if from == to {
				cell = "·"
			}
			row += strings.Repeat(" ", width+2-len([]rune(cell))) + cell
		}
		out.line("%s", row)
	}
}

// WriteRoutes prints a node's routes with the reason of each, as `caracal routes` does.
func (c *Cluster) WriteRoutes(ctx context.Context, w io.Writer, node string) error {
	list, err := c.Routes(ctx, node)
	if err != nil {
		return err
	}
	return inspect.Renderer{Now: time.Now()}.Routes(w, list)
}

// WriteStatus prints the picture of the cluster and a line for each daemon.
func (c *Cluster) WriteStatus(ctx context.Context, w io.Writer) error {
	if err := c.Plan.WritePicture(w); err != nil {
		return err
	}
	out := &printer{w: w}
	out.line("daemons")
	for _, n := range c.Plan.Members() {
		pid := c.PID(n.Name)
		state := "does not run; its log: " + c.LogPath(n.Name)
		if pid != 0 {
			state = fmt.Sprintf("process %d, %s", pid, c.oneLine(ctx, n.Name))
		}
		out.line("  %-8s %s", n.Name, state)
	}
	return out.err
}

// oneLine says in a few words how a daemon is doing.
func (c *Cluster) oneLine(ctx context.Context, node string) string {
	st, err := c.Status(ctx, node)
	if err != nil {
		return "does not answer: " + err.Error()
	}
	var routes uint32
	for _, n := range st.GetCounts() {
		routes += n.GetRoutes()
	}
	if r := st.GetReadiness(); !r.GetReady() {
		return fmt.Sprintf("backend %s, %d routes, waits for %s", st.GetBackend(), routes, strings.Join(r.GetWaitingFor(), "; "))
	}
	return fmt.Sprintf("backend %s, %d routes, ready", st.GetBackend(), routes)
}
