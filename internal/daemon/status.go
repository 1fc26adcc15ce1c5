package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/inspect"
	"github.com/caracal-net/caracal/routes"
)

// sources lends inspection what it reads.
func (d *daemon) sources() inspect.Sources {
	return inspect.Sources{
		Node:       d.cfg.Node,
		Backend:    func() cluster.Backend { return d.controller.View().backend },
		State:      func() *cluster.State { return d.controller.View().state },
		Status:     d.status,
		VTEPs:      d.vteps,
		Peers:      d.peers,
		Paths:      d.paths,
		WatchPeers: d.sessions.listen,
		PeerRoutes: d.peerRoutes,
		Routes:     d.programmer.Snapshot,
		Counts:     d.programmer.Counts,
		WatchRoutes: func(ctx context.Context, changed func([]routes.Status)) {
			_ = d.programmer.Watch(ctx, changed) // it ends with ctx and has no other reason to
		},
		Lookup:    d.programmer.Lookup,
		Resync:    d.programmer.Resync,
		Settings:  d.programmer.Settings,
		History:   d.programmer.History,
		HistoryOf: d.programmer.HistoryOf,
		Latencies: d.programmer.Latencies,
		PlanBGP:   d.planBGP,
		DiffBGP:   d.diffBGP,
		Drain:     d.departure.Drain,
		Undrain:   d.departure.Undrain,
		Release: func() string {
			if h := d.controller.Release(); h != nil {
				return h.String()
			}
			return ""
		},
	}
}

func (d *daemon) peers() []bgp.PeerStatus {
	peers := d.engine.Peers()
	paths := d.liveness.status()
	for i := range peers {
		if b, ok := paths[peers[i].Addr]; ok {
			peers[i].Path = &bgp.PathStatus{State: b.State.String(), Since: b.Since, Interval: b.Interval, Detection: b.Detection,
				Diag: b.Diag.String(), RemoteDiag: b.RemoteDiag.String(), Downs: b.Downs, Err: b.Err}
		}
	}
	return peers
}

func (d *daemon) vteps() []inspect.VTEP {
	var out []inspect.VTEP
	for _, v := range d.controller.View().vteps {
		out = append(out, inspect.VTEP{Node: v.Node, Family: v.Family, Addr: v.Addr, MAC: v.MAC, Underlay: v.NodeAddr,
			Device: v.Device, Local: v.Local, Problem: v.Detail})
	}
	return out
}

// status is how the daemon is doing, in words for a person and for the health service.
func (d *daemon) status() inspect.StatusInfo {
	v := d.controller.View()
	info := inspect.StatusInfo{Version: inspect.Version(), Started: d.started, Problems: v.problems}
	store := inspect.SourceStatus{Name: "datastore", InSync: v.inSync}
	if v.storeErr != nil {
		store.Detail = v.storeErr.Error()
	}
	if v.held != nil {
		store.Detail = strings.TrimPrefix(store.Detail+"; "+v.held.String(), "; ")
	}
	info.Sources = append(info.Sources, store)
	wait := func(format string, args ...any) {
		info.WaitingFor = append(info.WaitingFor, fmt.Sprintf(format, args...))
	}
	switch {
	case !v.inSync && !v.stale.IsZero():
		wait("the datastore %s cannot be read; routes are made from what was kept at %s", d.cfg.Datastore, v.stale.Format(time.RFC3339))
	case !v.inSync:
		wait("the datastore %s has not been read yet", d.cfg.Datastore)
	case !v.planned:
		wait("a first plan: the host's interfaces and our own Node")
	}
	if v.backend == cluster.BackendBird {
		info.Sources = append(info.Sources, d.bgpStatus(v))
		if s := v.services; s.announced+len(s.held) > 0 {
			info.Sources = append(info.Sources, inspect.SourceStatus{Name: "services", InSync: len(s.held) == 0, Detail: s.String()})
		}
	}
	if err := d.start.Err(); err != nil {
		wait("the node's start: %v", err)
	}
	if err := d.tunnels.Err(); err != nil {
		wait("tunnel addresses: %v", err)
	}
	if _, err := d.engine.Status(); err != nil && v.backend == cluster.BackendBird {
		wait("BGP: %v", err)
	}
	info.Leaving = d.departure.Status()
	info.Devices = d.devices()
	info.Ready = len(info.WaitingFor) == 0
	return info
}

func (d *daemon) bgpStatus(v view) inspect.SourceStatus {
	s := inspect.SourceStatus{Name: "bgp", InSync: v.bgpDone}
	for _, p := range d.peers() {
		if !p.EndOfRIB {
			s.Detail = appendWord(s.Detail, p.Name)
		}
	}
	if s.Detail != "" {
		s.Detail = "no End-of-RIB from " + s.Detail
	}
	return s
}

func appendWord(list, word string) string {
	if list == "" {
		return word
	}
	return list + ", " + word
}

// devices is every wanted tunnel device.
func (d *daemon) devices() []inspect.DeviceStatus {
	return deviceRows(d.programmer.Devices(), d.programmer.Neighbours())
}

// deviceRows are devices with how many of their permanent neighbour and FDB entries stand, and what is wrong with the first that does not.
func deviceRows(devices []routes.DeviceStatus, neighbours []routes.NeighbourStatus) []inspect.DeviceStatus {
	var out []inspect.DeviceStatus
	index := map[string]int{}
	for _, s := range devices {
		index[s.Link.Name] = len(out)
		out = append(out, inspect.DeviceStatus{Name: s.Link.Name, Kind: s.Link.Kind, Owner: s.Owner, Outcome: s.Outcome, Detail: s.Detail,
			MTU: s.MTU, Addresses: s.Addresses})
	}
	for _, n := range neighbours {
		i, ok := index[n.Neighbour.Device]
		if !ok {
			continue
		}
		out[i].NeighboursWanted++
		if n.Outcome == routes.Installed {
			out[i].NeighboursInstalled++
		} else if n.Detail != "" && out[i].Detail == "" {
			out[i].Detail = fmt.Sprintf("neighbour %s: %s", n.Neighbour.Addr, n.Detail)
			if n.Neighbour.FDB {
				out[i].Detail = fmt.Sprintf("FDB entry of %s: %s", n.Neighbour.Addr, n.Detail)
			}
		}
	}
	return out
}
