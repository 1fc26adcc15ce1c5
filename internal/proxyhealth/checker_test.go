package proxyhealth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// announcing is a cluster that announces a Service with policy Local, which is ready at the nodes.
func announcing(ready ...string) *cluster.State {
	prefix := netip.MustParsePrefix
	return cluster.Build(cluster.Objects{
		Nodes:    []*cluster.Node{{Name: "a", Addr4: prefix("192.0.2.1/24")}},
		BGP:      cluster.BGPConfig{ASN: 1, ServiceLoadBalancerIPs: []netip.Prefix{prefix("203.0.113.0/24")}},
		Services: []*cluster.Service{{Name: "default/web", Local: true, HealthPort: 30000}, {Name: "default/other", Local: true}},
		Slices:   []*cluster.EndpointSlice{{Name: "default/web-1", Service: "default/web", Family: cluster.IPv4, Ready: ready}},
	})
}

// scene is a Checker whose questions are answered by a table.
type scene struct {
	t       *testing.T
	mu      sync.Mutex // guards what follows
	c       *Checker
	answers map[string]answer // by service; "" is the proxy
	asked   map[string]int
	last    *bgp.DataPlane
}

var (
	yes    = answer{code: 200, status: "200 OK", endpoints: 1}
	late   = answer{code: 503, status: "503 Service Unavailable", endpoints: 1}
	none   = answer{code: 503, status: "503 Service Unavailable"}
	nobody = answer{err: errors.New("connection refused")}
)

func newScene(t *testing.T, o Options) *scene {
	s := &scene{t: t, answers: map[string]answer{"": nobody, "default/web": nobody}, asked: map[string]int{}}
	o.Node, o.Address = "a", "127.0.0.1:10256"
	o.Changed = func(p *bgp.DataPlane) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last = p
	}
	s.c = New(o)
	s.c.ask = func(_ context.Context, q question) answer {
		if q.service == "default/web" && q.address != "192.0.2.1:30000" {
			t.Errorf("asked at %s", q.address)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[q.service]++
		return s.answers[q.service]
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// say has one answered in another way from now on.
func (s *scene) say(service string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[service] = a
}

// count returns how often one was asked, and all together.
func (s *scene) count(service string) (one, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.asked {
		all += n
	}
	return s.asked[service], all
}

// want waits and compares what is verified.
func (s *scene) want(after time.Duration, proxy, web bool) {
	s.t.Helper()
	time.Sleep(after) // of the bubble's clock
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.t.Fatal("nothing was told")
	}
	for _, v := range []struct {
		what string
		got  bgp.Verified
		want bool
	}{{"proxy", s.last.Proxy, proxy}, {"Service", s.last.Services["default/web"], web}} {
		if v.got.OK != v.want || (v.got.Why == "") != v.want {
			s.t.Errorf("%s: %+v, want %v", v.what, v.got, v.want)
		}
	}
}

func (s *scene) doubt(want bool) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if (s.last.Doubt != "") != want {
		s.t.Errorf("doubt %q", s.last.Doubt)
	}
}

// TestBoot: the proxy comes, then its rules, then those of the Service.
func TestBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Options{})
		s.c.SetState(announcing("a", "b"))
		s.want(0, false, false)
		s.say("", none)
		s.want(3*time.Second, false, false)
		s.say("", yes)
		s.want(3*time.Second, true, false)
		s.say("default/web", none)
		s.want(3*time.Second, true, false)
		s.say("default/web", yes)
		s.want(3*time.Second, true, true)
		// A proxy that restarts, or is late, takes nothing back.
		s.say("", nobody)
		s.say("default/web", nobody)
		s.want(time.Minute, true, true)
		s.say("", late)
		s.say("default/web", late)
		s.want(time.Minute, true, true)
		// A Service without endpoints does.
		s.say("default/web", none)
		s.want(time.Minute, true, false)
		s.say("default/web", nobody)
		s.want(time.Second, true, false)
	})
}

// TestNobodyAnswers: addresses are held for a while, and not at all where a former process has left its routes.
func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Options{Patience: time.Minute})
		s.c.SetState(announcing("a"))
		s.want(55*time.Second, false, false)
		s.want(10*time.Second, true, true)
		s.doubt(true)
		s.say("", none) // it does answer after all
		s.want(10*time.Second, false, false)
		s.doubt(false)
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Options{Forwarding: true})
		s.c.SetState(announcing("a"))
		s.want(0, true, true)
		s.say("", yes) // this proxy serves no ports of Services: they were announced, and stay so
		s.want(time.Hour, true, true)
		s.doubt(false)
		s.say("default/web", none) // it does after all
		s.want(20*time.Second, true, false)
		s.say("default/web", nobody)
		s.want(20*time.Second, true, false)
		s.want(time.Minute, true, true)
		s.doubt(true)
	})
	synctest.Test(t, func(t *testing.T) { // a proxy that is late when we come back
		s := newScene(t, Options{Forwarding: true})
		s.say("", late)
		s.say("default/web", late)
		s.c.SetState(announcing("a"))
		s.want(0, true, true)
		s.say("default/web", none)
		s.want(20*time.Second, true, false)
	})
	synctest.Test(t, func(t *testing.T) { // a Service that comes later is new to the node
		s := newScene(t, Options{Forwarding: true})
		s.say("", yes)
		s.c.SetState(announcing("b"))
		synctest.Wait()
		s.c.SetState(announcing("a"))
		s.want(55*time.Second, true, false)
		s.want(10*time.Second, true, true)
		s.doubt(true)
	})
}

// TestWhoIsAsked: nobody while nothing is announced; a Service only while it has an endpoint here; seldom when all is well, and at once when there is
// something new to ask.
func TestWhoIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Options{})
		s.say("", yes)
		asked := func(when string, proxy, web int) {
			t.Helper()
			synctest.Wait()
			p, _ := s.count("")
			if w, _ := s.count("default/web"); p != proxy || w != web {
				t.Errorf("%s: asked the proxy %d times, want %d; about the Service %d, want %d", when, p, proxy, w, web)
			}
		}
		s.c.SetState(cluster.Build(cluster.Objects{}))
		time.Sleep(time.Hour)
		asked("nothing is announced", 0, 0)
		s.c.SetState(announcing("b"))
		asked("something is", 1, 0)
		s.c.SetState(announcing("b", "c"))
		asked("something else has changed", 1, 0)
		for range 3600 { // whatever else happens meanwhile
			time.Sleep(time.Second)
			s.c.SetState(announcing("b", "d"))
		}
		if n, _ := s.count(""); n < 300 || n > 361 {
			t.Errorf("asked %d times in an hour", n)
		}
		time.Sleep(500 * time.Millisecond) // not at the very moment of a question
		synctest.Wait()
		n, _ := s.count("")
		s.c.SetState(announcing("a"))
		asked("an endpoint is ready", n+1, 1)
		s.c.SetState(cluster.Build(cluster.Objects{}))
		synctest.Wait()
		time.Sleep(time.Hour)
		asked("nothing is announced any more", n+1, 1)
	})
}

// TestHostName: an endpoint is here where it names the node as Kubernetes does.
func TestHostName(t *testing.T) {
	for host, asked := range map[string]int{"": 0, "host-a": 1} {
		c := New(Options{Node: "a", Host: host, Address: "127.0.0.1:10256"})
		c.SetState(announcing("host-a"))
		if got := len(c.questions()) - 1; got != asked {
			t.Errorf("%q: %d Services are asked about, want %d", host, got, asked)
		}
	}
}

// TestSilence: where packets to the ports vanish, a node with a thousand Services is told what is known all the same, and soon.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := announcing("a").Objects()
		for i := range 1000 {
			name := fmt.Sprintf("default/s%d", i)
			o.Services = append(o.Services, &cluster.Service{Name: name, Local: true, HealthPort: uint16(31000 + i)})
			o.Slices = append(o.Slices, &cluster.EndpointSlice{Name: name, Service: name, Family: cluster.IPv4, Ready: []string{"a"}})
		}
		s := newScene(t, Options{Forwarding: true})
		s.c.ask = func(ctx context.Context, _ question) answer {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			<-ctx.Done()
			return answer{err: ctx.Err()}
		}
		s.c.SetState(cluster.Build(o))
		s.want(roundLimit+time.Second, true, true)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.last.Services); n != 1001 {
			t.Errorf("%d Services were told of", n)
		}
	})
}

// TestGet: what an HTTP server says.
func TestGet(t *testing.T) {
	said, code := "", 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(said))
	}))
	q := question{address: strings.TrimPrefix(server.URL, "http://")}
	for _, c := range []struct {
		said      string
		code      int
		ok        bool
		endpoints int
	}{
		{`{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}`, 200, true, 2},
		{`{"localEndpoints":1,"serviceProxyHealthy":false}`, 503, false, 1},
		{`{"lastUpdated":"2026-01-01"}`, 200, true, 0}, {`ok`, 200, true, 0}, {``, 503, false, 0}, {`{"localEndpoints":"many"}`, 503, false, 0},
	} {
		said, code = c.said, c.code
		if a := get(t.Context(), q); a.ok() != c.ok || a.endpoints != c.endpoints || a.err != nil {
			t.Errorf("%s: %+v", c.said, a)
		}
	}
	server.Close()
	if a := get(t.Context(), q); a.err == nil || a.ok() {
		t.Errorf("nobody: %+v", a)
	}
}
