package peers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
)

// How long the parts of a router's life may take; they take a hundredth of it when nothing is wrong.
const (
	readyTimeout = 20 * time.Second
	stopTimeout  = 10 * time.Second
	queryTimeout = 10 * time.Second
	pollEvery    = 10 * time.Millisecond
)

// system is what an implementation adds to the Router.
type system interface {
	// programs are the files it needs, each with what provides it.
	programs() []program
	// files are the configuration files by name.
	files(r *Router) map[string]string
	// user owns the directory and its files, "" for the caller.
	user() string
	// commands are the processes, in the order in which they are started; each is ready before the next is started.
	commands(r *Router) []command
	sessions(ctx context.Context, r *Router) ([]Session, error)
	paths(ctx context.Context, r *Router, p netip.Prefix) ([]Path, error)
	// reload has the processes read the files again.
	reload(ctx context.Context, r *Router) error
}

type program struct{ path, source string }

// command is one process.
type command struct {
	name  string // of its log
	args  []string
	ready func(ctx context.Context) error // nil when it answers
}

// Router is a running router.
type Router struct {
	Kind   Kind
	NS     netns.NS
	dir    string
	cfg    Config
	was    Config // before the last Reconfigure
	system system
	procs  []*child
	// restarted: a former life of this router has been killed (RFC 4724 section 4.1).
	restarted bool
}

func systemOf(k Kind) (system, error) {
	switch k {
	case BIRD2:
		return bird2{}, nil
	case BIRD1:
		return bird1{}, nil
	case FRR:
		return frr{}, nil
	case GoBGP:
		return plainGoBGP{}, nil
	case OpenBGPD:
		return openbgpd{}, nil
	}
	return nil, fmt.Errorf("no router of kind %q", k)
}

// Missing returns what is to be installed before a kind can be started, "" for nothing.
func Missing(k Kind) string {
	s, err := systemOf(k)
	if err != nil {
		return err.Error()
	}
	for _, p := range s.programs() {
		if _, err := exec.LookPath(p.path); err != nil {
			return p.path + ", which comes with " + p.source
		}
	}
	return ""
}

// Start starts a router in a namespace. dir is an empty directory of the caller's, with a short path, because control sockets are in it.
func Start(ctx context.Context, k Kind, ns netns.NS, dir string, cfg Config) (*Router, error) {
	if what := Missing(k); what != "" {
		return nil, fmt.Errorf("start %s: missing %s", k, what)
	}
	s, err := systemOf(k)
	if err != nil {
		return nil, err
	}
	r := &Router{Kind: k, NS: ns, dir: dir, cfg: cfg, system: s}
	if err := r.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s in namespace %s: %w\n%s", k, ns.Name, err, r.Log(20)), r.Kill())
	}
	return r, nil
}

func (r *Router) start(ctx context.Context) error {
	if err := r.write(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, c := range r.system.commands(r) {
		p, err := startChild(r.NS, c.args, r.path(c.name+".log"))
		if err != nil {
			return err
		}
		r.procs = append(r.procs, p)
		if r.cfg.bfd() > 0 {
			p.realTime()
		}
		if c.ready == nil {
			continue
		}
		err = Poll(ctx, func() error {
			if p.over() {
				return stopPolling{fmt.Errorf("%s ended: %w", c.name, p.ended())}
			}
			return c.ready(ctx)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (r *Router) path(name string) string { return filepath.Join(r.dir, name) }

func (r *Router) write() error {
	files := r.system.files(r)
	maps.Copy(files, r.cfg.Files)
	for name, text := range files {
		if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return r.chown()
}

// chown gives the directory and the files in it to the user that the processes will be.
func (r *Router) chown() error {
	name := r.system.user()
	if name == "" {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Chown(r.path(e.Name()), uid, -1); err != nil {
			return err
		}
	}
	return os.Chown(r.dir, uid, -1)
}

// Configure writes another Config for a router that does not run at present; Restart follows it.
func (r *Router) Configure(cfg Config) error {
	r.was, r.cfg = r.cfg, cfg
	return r.write()
}

// Reconfigure makes the router follow another Config without a restart.
func (r *Router) Reconfigure(ctx context.Context, cfg Config) error {
	if err := r.Configure(cfg); err != nil {
		return fmt.Errorf("reconfigure %s: %w", r.Kind, err)
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if err := r.system.reload(ctx, r); err != nil {
		return fmt.Errorf("reconfigure %s: %w", r.Kind, err)
	}
	return nil
}

// Sessions returns the state of every session, in the order of the Config.
func (r *Router) Sessions(ctx context.Context) ([]Session, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	found, err := r.system.sessions(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("sessions of %s: %w", r.Kind, err)
	}
	out := make([]Session, 0, len(r.cfg.Neighbours))
	for _, n := range r.cfg.Neighbours {
		i := slices.IndexFunc(found, func(s Session) bool { return s.Neighbour == n.Addr })
		if i < 0 {
			return nil, fmt.Errorf("sessions of %s: none with %s", r.Kind, n.Addr)
		}
		out = append(out, found[i])
	}
	return out, nil
}

// Paths returns what the router knows of exactly this prefix.
func (r *Router) Paths(ctx context.Context, p netip.Prefix) ([]Path, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	paths, err := r.system.paths(ctx, r, p)
	if err != nil {
		return nil, fmt.Errorf("paths of %s for %s: %w", r.Kind, p, err)
	}
	return paths, nil
}

// WaitEstablished returns when every session is up.
func (r *Router) WaitEstablished(ctx context.Context) error {
	return Poll(ctx, func() error {
		sessions, err := r.Sessions(ctx)
		for _, s := range sessions {
			if !s.Established {
				return fmt.Errorf("%s: session with %s is %s %s", r.Kind, s.Neighbour, s.State, s.LastError)
			}
		}
		return err
	})
}

// PIDs returns the processes, for their memory and time.
func (r *Router) PIDs() []int {
	var out []int
	for _, p := range r.procs {
		out = append(out, p.pid)
	}
	return out
}

// Log returns the last lines of every log, for people.
func (r *Router) Log(lines int) string {
	logs, _ := filepath.Glob(r.path("*.log"))
	var b strings.Builder
	for _, name := range logs {
		data, _ := os.ReadFile(name)
		all := strings.Split(strings.TrimSpace(string(data)), "\n")
		fmt.Fprintf(&b, "%s:\n%s\n", filepath.Base(name), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return b.String()
}

// Stop asks the processes to end, the last started first, and waits for them.
func (r *Router) Stop() error {
	var errs []error
	for _, p := range slices.Backward(r.procs) {
		errs = append(errs, p.stop(stopTimeout))
	}
	r.procs = nil
	return errors.Join(errs...)
}

// Kill ends the processes at once; their peers learn of it from TCP.
func (r *Router) Kill() error {
	var errs []error
	for _, p := range r.procs {
		errs = append(errs, p.kill())
	}
	r.procs = nil
	return errors.Join(errs...)
}

// Restart starts a router that was killed or stopped, with what it has been configured to. Where it can it tells its neighbours that it has
// restarted and that packets were forwarded meanwhile.
func (r *Router) Restart(ctx context.Context) error {
	r.restarted = true
	if err := r.start(ctx); err != nil {
		return fmt.Errorf("restart %s: %w", r.Kind, err)
	}
	return nil
}

// query runs a control program in the namespace and returns its standard output.
func (r *Router) query(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := r.NS.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out.String(), complaint.String())
	}
	return out.String(), nil
}

// stopPolling is an error that waiting does not mend.
type stopPolling struct{ error }

// Poll calls f every 10 ms until it returns nil; when ctx ends it returns what f last complained of.
func Poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		err := f()
		var final stopPolling
		if err == nil || errors.As(err, &final) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err // not what the end of ctx did to f
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
