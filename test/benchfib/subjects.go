package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/test/peers"
	"github.com/caracal-net/caracal/test/peers/injector"
)

// subject is a system that can be measured.
type subject interface {
	name() string
	missing() string // what is to be installed first, "" for nothing
	start(ctx context.Context, p *place, peers int) (running, error)
}

// running is a subject in its place.
type running struct {
	pids []int
	stop func() error
	log  func() string // its last words, for when something failed
	// write is set for what has no session: it is called instead of sending, without a next hop to withdraw.
	write func(ctx context.Context, prefixes []netip.Prefix, via netip.Addr) error
	// read is set for what writes nothing: it counts what has arrived.
	read *reader
}

// routerSubject is a router of test/peers.
type routerSubject struct{ kind peers.Kind }

func (s routerSubject) name() string    { return string(s.kind) }
func (s routerSubject) missing() string { return peers.Missing(s.kind) }

func (s routerSubject) start(ctx context.Context, p *place, n int) (running, error) {
	cfg := peers.Config{ASN: asn, RouterID: routerAddr, Kernel: true}
	for k := range n {
		cfg.Neighbours = append(cfg.Neighbours, peers.Neighbour{Addr: peerAddr(k), ASN: asn, Local: routerAddr, Passive: true})
	}
	r, err := peers.Start(ctx, s.kind, p.router, p.dir, cfg)
	if err != nil {
		return running{}, err
	}
	return running{pids: r.PIDs(), stop: r.Stop, log: func() string { return r.Log(10) }}, nil
}

// daemonSubject is caracald with a directory of manifests.
type daemonSubject struct{ *options }

func (s daemonSubject) name() string { return "caracald" }

func (s daemonSubject) missing() string {
	if _, err := os.Stat(s.daemon); err != nil {
		return s.daemon + ": make build"
	}
	return ""
}

const manifests = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: plain}
spec: {cidr: 10.0.0.0/8, blockSize: %d, ipipMode: Never, vxlanMode: Never}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: self}
spec: {bgp: {ipv4Address: %s/24}}
`

const peerManifest = `---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: peer%d}
spec: {peerIP: %s, asNumber: %d}
`

func (s daemonSubject) start(_ context.Context, p *place, n int) (running, error) {
	store := filepath.Join(p.dir, "cluster")
	if err := os.Mkdir(store, 0o755); err != nil {
		return running{}, err
	}
	text := fmt.Sprintf(manifests, blockBits, routerAddr)
	for k := range n {
		text += fmt.Sprintf(peerManifest, k, peerAddr(k), asn)
	}
	if err := os.WriteFile(filepath.Join(store, "all.yaml"), []byte(text), 0o644); err != nil {
		return running{}, err
	}
	logPath := filepath.Join(p.dir, "caracald.log")
	log, err := os.Create(logPath)
	if err != nil {
		return running{}, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(s.daemon, "run", "--node", "self", "--backend", "bird", "--datastore", "file:"+store,
		"--socket", filepath.Join(p.dir, "caracal.sock"), "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = log, log
	if err := p.router.Start(cmd); err != nil {
		return running{}, err
	}
	return running{
		pids: []int{cmd.Process.Pid},
		stop: func() error { return end(cmd) },
		log: func() string {
			b, _ := os.ReadFile(logPath)
			return string(b)
		},
	}, nil
}

// end asks a process to end and kills it if it does not.
func end(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return errors.Join(err, ignore(cmd.Wait()))
	}
	late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	return ignore(cmd.Wait())
}

// ignore drops the error of a process that was killed.
func ignore(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// readSubject receives and parses, and writes nothing: what TCP, the injector and parsing cost.
type readSubject struct{}

func (readSubject) name() string    { return "read" }
func (readSubject) missing() string { return "" }

func (readSubject) start(ctx context.Context, p *place, _ int) (running, error) {
	r := &reader{}
	stop, err := listen(ctx, p, r.update)
	return running{stop: stop, read: r}, err
}

// bareSubject receives, parses, and writes to the kernel in batches: the least a chain can do.
type bareSubject struct{}

func (bareSubject) name() string    { return "bare" }
func (bareSubject) missing() string { return "" }

func (bareSubject) start(ctx context.Context, p *place, _ int) (running, error) {
	w, err := newWriter(p)
	if err != nil {
		return running{}, err
	}
	stop, err := listen(ctx, p, w.update)
	return running{stop: func() error { return errors.Join(stop(), w.close()) }}, err
}

// writeSubject writes a table that is already there: the kernel's limit.
type writeSubject struct{}

func (writeSubject) name() string    { return "write" }
func (writeSubject) missing() string { return "" }

func (writeSubject) start(_ context.Context, p *place, _ int) (running, error) {
	w, err := newWriter(p)
	if err != nil {
		return running{}, err
	}
	return running{stop: w.close, write: func(_ context.Context, prefixes []netip.Prefix, via netip.Addr) error {
		verb := kernel.Replace
		if !via.IsValid() {
			verb, via = kernel.Delete, injectorAddr
		}
		w.add(verb, prefixes, via)
		return w.flush()
	}}, nil
}

// listen waits for the injector in the router's namespace.
func listen(ctx context.Context, p *place, onUpdate func(*injector.Update)) (stop func() error, err error) {
	l, err := injector.Listen(ctx, injector.Options{
		NS: &p.router, ASN: asn, RouterID: routerAddr, Local: routerAddr, OnUpdate: onUpdate,
	})
	if err != nil {
		return nil, err
	}
	return l.Close, nil
}
