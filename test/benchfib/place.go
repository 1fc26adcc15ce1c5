package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/caracal-net/caracal/internal/netns"
)

// The wire: the router, the injector with an address for each peer that it plays, and a next hop beside it that need not answer.
var (
	routerAddr   = netip.MustParseAddr("192.0.2.1")
	injectorAddr = netip.MustParseAddr("192.0.2.2")
	otherHop     = netip.MustParseAddr("192.0.2.3")
)

const (
	asn        = 64512 // Calico's default; the session is iBGP, as between nodes
	localPref  = 2147483647 - 1024
	otherOctet = 3 // last octet of otherHop
	firstPeer  = 4 // last octet of the second peer's address
	maxPeers   = 200
)

// peerAddr is the address of the k-th peer.
func peerAddr(k int) netip.Addr {
	if k == 0 {
		return injectorAddr
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(firstPeer + k - 1)})
}

// place is where one measurement happens: two namespaces, a wire between them, a directory.
type place struct {
	router, injector netns.NS
	dir              string
	fib              *fib
}

func newPlace(peers int) (p *place, err error) {
	p = &place{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.dir, err = os.MkdirTemp("", "benchfib"); err != nil {
		return p, err
	}
	name := fmt.Sprintf("benchfib-%d", os.Getpid())
	if p.router, err = netns.Create(name + "-router"); err != nil {
		return p, err
	}
	if p.injector, err = netns.Create(name + "-injector"); err != nil {
		return p, err
	}
	for _, l := range []struct {
		ns   netns.NS
		line string
	}{
		{p.router, "link add name eth0 type veth peer name eth0 netns " + p.injector.Name},
		{p.router, "link set eth0 up"}, {p.injector, "link set eth0 up"},
		{p.router, "address add " + routerAddr.String() + "/24 dev eth0"}, {p.injector, "address add " + injectorAddr.String() + "/24 dev eth0"},
	} {
		if _, err = l.ns.Run("ip", strings.Fields(l.line)...); err != nil {
			return p, err
		}
	}
	for k := 1; k < peers; k++ {
		if _, err = p.injector.Run("ip", "address", "add", peerAddr(k).String()+"/24", "dev", "eth0"); err != nil {
			return p, err
		}
	}
	p.fib, err = openFIB(p.router)
	return p, err
}

func (p *place) close() error {
	var errs []error
	if p.fib != nil {
		errs = append(errs, p.fib.close())
	}
	for _, ns := range []netns.NS{p.router, p.injector} {
		if ns.Name != "" {
			errs = append(errs, ns.Delete())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}
