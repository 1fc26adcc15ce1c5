package proxyhealth

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// DefaultAddress is where kube-proxy tells of its health (healthzBindAddress).
const DefaultAddress = "127.0.0.1:10256"

// The pace of questions.
const (
	firstPause = 250 * time.Millisecond
	slowPause  = 2 * time.Second
	calmPause  = 10 * time.Second
	// DefaultPatience is how long nobody at the proxy's port holds addresses back.
	DefaultPatience = time.Minute
)

// Options say whom to ask.
type Options struct {
	Node    string // ours
	Host    string // the same as Kubernetes names it, of which endpoints tell; "" = Node
	Address string // of the proxy's health, host and port
	Log     *slog.Logger
	// Forwarding: a former process of ours has left its routes, so that this node has been forwarding.
	Forwarding bool
	Patience   time.Duration // 0 = DefaultPatience
	// Changed is called with what is verified, from Run's goroutine: first soon after addresses are to be announced, then whenever it differs. What it
	// gets is not written to any more.
	Changed func(*bgp.DataPlane)
}

// Checker is the task.
type Checker struct {
	opts Options
	ask  func(ctx context.Context, question question) answer
	wake chan struct{}

	mu    sync.Mutex
	state *cluster.State

	// Owned by Run's goroutine.
	began    time.Time          // the proxy has been asked since
	wasOK    bool               // it has been verified
	services map[string]service // asked about in the last round
	last     *bgp.DataPlane
	doubt    string // why the last one rests on nobody's answer
}

// service is what is remembered of a Service while it is asked about.
type service struct {
	since    time.Time
	verified bool
	excused  bool // it was forwarded to before we came: nobody's answer holds nothing back
}

// New returns a Checker.
func New(o Options) *Checker {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	return &Checker{opts: o, ask: get, wake: make(chan struct{}, 1)}
}

// String names the task.
func (c *Checker) String() string { return "service proxy health" }

// SetState tells what the cluster announces. A nil Checker has nothing to do.
func (c *Checker) SetState(st *cluster.State) {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.state = st
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run is the task.
func (c *Checker) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	pause, asked := firstPause, []question(nil)
	for {
		woken := false
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			woken = true
		case <-timer.C:
		}
		questions := c.questions()
		switch same := slices.Equal(questions, asked); {
		case same && woken:
			continue // something else has changed; the timer goes on
		case !same:
			pause = firstPause
		}
		timer.Stop()
		if asked = questions; len(asked) == 0 {
			c.forget()
			continue
		}
		answers := c.round(ctx, asked)
		if ctx.Err() != nil {
			return nil
		}
		if c.judge(asked, answers, time.Now()) {
			pause = calmPause
		} else {
			pause = min(pause*3/2, slowPause)
		}
		timer.Reset(pause)
	}
}

// question is one address to ask at; the proxy's has no service.
type question struct {
	service string
	address string
}

// questions returns whom to ask: nobody while no addresses are announced.
func (c *Checker) questions() []question {
	c.mu.Lock()
	st := c.state
	c.mu.Unlock()
	conf, self := st.BGP(), st.Node(c.opts.Node)
	if !conf.AnnouncesServices() || self == nil {
		return nil
	}
	out := []question{{address: c.opts.Address}}
	host := self.Addr4.Addr()
	if !host.IsValid() {
		host = self.Addr6.Addr()
	}
	for _, s := range st.Services() {
		if bgp.Checked(s) && host.IsValid() && readyHere(st, s.Name, cmp.Or(c.opts.Host, c.opts.Node)) {
			out = append(out, question{service: s.Name, address: netip.AddrPortFrom(host, s.HealthPort).String()})
		}
	}
	return out
}

func readyHere(st *cluster.State, service, node string) bool {
	return slices.ContainsFunc(st.Slices(service), func(e *cluster.EndpointSlice) bool {
		_, here := slices.BinarySearch(e.Ready, node)
		return here
	})
}

// parallel bounds the questions that are asked at a time, roundLimit how long all of them may take: the first configuration of BGP waits for them.
const (
	parallel   = 16
	roundLimit = 5 * time.Second
)

// round asks them all. Who has not answered when the time is over counts as nobody.
func (c *Checker) round(ctx context.Context, questions []question) []answer {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	answers := make([]answer, len(questions))
	turn := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i := range questions {
		turn <- struct{}{}
		all.Go(func() {
			answers[i] = c.ask(ctx, questions[i])
			<-turn
		})
	}
	all.Wait()
	return answers
}

// judge makes of the answers what is verified, and reports whether all is.
func (c *Checker) judge(questions []question, answers []answer, now time.Time) bool {
	first := c.began.IsZero()
	if first {
		c.began = now
	}
	was := c.doubt
	c.doubt = ""
	plane := &bgp.DataPlane{Services: map[string]bgp.Verified{}}
	plane.Proxy = c.judgeProxy(&answers[0], now)
	known, complete := map[string]service{}, plane.Proxy.OK
	for i := 1; i < len(questions); i++ {
		name := questions[i].service
		s, before := c.services[name]
		if !before {
			s = service{since: now, excused: first && c.opts.Forwarding}
		}
		v := c.judgeService(&s, &questions[i], &answers[i], plane.Proxy.OK, now)
		known[name], plane.Services[name] = s, v
		complete = complete && v.OK
	}
	if c.doubt != "" && c.doubt != was {
		c.opts.Log.Warn("addresses of Services are announced without being verified", logWhy, c.doubt)
	}
	c.services, plane.Doubt = known, c.doubt
	c.tell(plane)
	return complete && c.doubt == ""
}

// judgeService says what is known of a Service by its own port. A port at which nobody answers may be one that this cluster's proxy does not serve.
func (c *Checker) judgeService(s *service, q *question, a *answer, proxy bool, now time.Time) bgp.Verified {
	late := s.since.Add(c.opts.Patience)
	switch {
	case a.ok():
		s.verified = true
	case a.err == nil && (s.verified || s.excused) && a.endpoints > 0: // the proxy as a whole is late
	case a.err == nil:
		s.verified, s.excused, s.since = false, false, now
		return bgp.Verified{Why: fmt.Sprintf("the service proxy has no endpoint here for it yet (%s, healthCheckNodePort %s)", a.status, q.address)}
	case s.verified || s.excused:
	case now.Before(late) || !proxy:
		return bgp.Verified{Why: fmt.Sprintf("the service proxy does not answer for it yet at %s (healthCheckNodePort); announced without at %s", q.address, late.UTC().Format(time.TimeOnly))}
	case c.doubt == "":
		c.doubt = "unverified: nobody answers for Service " + q.service + " at " + q.address + " (healthCheckNodePort)"
	}
	return bgp.Verified{OK: true}
}

func (c *Checker) judgeProxy(a *answer, now time.Time) bgp.Verified {
	late := c.began.Add(c.opts.Patience)
	switch {
	case a.ok():
		c.wasOK = true
	case c.wasOK || c.opts.Forwarding: // its rules are in the kernel
	case a.err == nil:
		return bgp.Verified{Why: fmt.Sprintf("the service proxy says at %s that its rules are not as they should be (%s)", c.opts.Address, a.status)}
	case now.Before(late):
		return bgp.Verified{Why: fmt.Sprintf("nobody answers at %s, where the service proxy tells whether its rules are written; announced without at %s", c.opts.Address, late.UTC().Format(time.TimeOnly))}
	default:
		c.doubt = "unverified: nobody answers at " + c.opts.Address + ", where the service proxy would tell of its health; name its address, or write off"
	}
	return bgp.Verified{OK: true}
}

// forget is for when nothing is announced any more.
func (c *Checker) forget() {
	c.began, c.last, c.services = time.Time{}, nil, nil
}

// tell passes on what differs.
func (c *Checker) tell(plane *bgp.DataPlane) {
	if c.last == nil || c.last.Proxy != plane.Proxy || c.last.Doubt != plane.Doubt || !maps.Equal(c.last.Services, plane.Services) {
		c.last = plane
		c.opts.Changed(plane)
	}
}

// logWhy is a key of log records.
const logWhy = "why"
