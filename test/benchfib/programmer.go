package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
)

// programmerSubject is the daemon's route programmer, as the daemon opens it, told of a table that is already there.
type programmerSubject struct{}

func (programmerSubject) name() string    { return "programmer" }
func (programmerSubject) missing() string { return "" }

func (programmerSubject) start(ctx context.Context, p *place, _ int) (running, error) {
	k, err := kernel.Open(kernel.Options{Namespace: p.router.Path(), MuteAdds: true})
	if err != nil {
		return running{}, err
	}
	programmer := routes.New(routes.Options{Kernel: k, Log: slog.New(slog.DiscardHandler), NexthopObjects: true})
	inner, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- programmer.Run(inner) }()
	stop := func() error {
		cancel()
		return errors.Join(<-done, k.Close())
	}
	if err := programmer.Resync(ctx); err != nil {
		return running{}, errors.Join(err, stop())
	}
	programmer.Expect()
	return running{stop: stop, write: func(_ context.Context, prefixes []netip.Prefix, via netip.Addr) error {
		programmer.Apply(routes.OwnerBGP, routes.Change{Whole: true, Routes: wished(prefixes, via)})
		return nil
	}}, nil
}

// wished has one reason and one list of next hops for all, as the daemon has for what one peer announces; without a next hop there
// is nothing to wish.
func wished(prefixes []netip.Prefix, via netip.Addr) []routes.Route {
	if !via.IsValid() {
		return nil
	}
	hops := []routes.NextHop{{Gateway: via, Device: "eth0"}}
	reason := &routes.Reason{Rule: "Never"}
	all := make([]routes.Route, len(prefixes))
	for i, p := range prefixes {
		all[i] = routes.Route{Dst: p, Type: kernel.Unicast, NextHops: hops, Reason: reason}
	}
	return all
}
