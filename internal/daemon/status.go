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
				Diag: b.Diag.String(), RemoteDiag: b.RemoteDiag.String(), Downs: b.Downs, Err: b.Err,
				RemoteState: b.RemoteState.String(), Multihop: b.Multihop, Sent: b.Sent, Received: b.Received}
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
	switch {
	case v.held != nil:
		store.Detail = strings.TrimPrefix(store.Detail+"; "+v.held.String(), "; ")
	case v.suspect != "":
		store.Detail = strings.TrimPrefix(store.Detail+"; in doubt: "+v.suspect, "; ")
	}
	info.Sources = append(info.Sources, store)
	if v.backend == cluster.BackendBird {
		info.Sources = append(info.Sources, d.bgpStatus(v))
		if s := v.services; s.announced+len(s.held) > 0 {
			info.Sources = append(info.Sources, inspect.SourceStatus{Name: "services", InSync: len(s.held) == 0, Detail: s.String()})
		}
	}
	info.WaitingFor = d.waitingFor(v)
	info.Ready = len(info.WaitingFor) == 0
	info.Leaving = d.departure.Status()
	info.Devices = d.devices()
	return info
}

// ready is the answer for the Node's condition: routes, not BGP sessions, decide whether the network can be used. It is asked for every
// second, so it looks at nothing that is as large as the cluster.
func (d *daemon) ready() (bool, string) {
	waiting := d.waitingFor(d.controller.View())
	return len(waiting) == 0, strings.Join(waiting, "; ")
}

// waitingFor says what keeps the node from being ready, nothing when it is.
func (d *daemon) waitingFor(v view) (all []string) {
	wait := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	switch {
	case !v.inSync && !v.stale.IsZero():
		wait("the datastore %s cannot be read; routes are made from what was kept at %s", d.cfg.Datastore, v.stale.Format(time.RFC3339))
	case !v.inSync:
		wait("the datastore %s has not been read yet", d.cfg.Datastore)
	case !v.planned:
		wait("a first plan: the host's interfaces and our own Node")
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
	return all
}

func (d *daemon) bgpStatus(v view) inspect.SourceStatus {
	s := inspect.SourceStatus{Name: "bgp", InSync: v.bgpDone}
	var silent []string
	for _, p := range d.peers() {
		if !p.EndOfRIB {
			silent = append(silent, p.Name)
		}
	}
	s.Detail = noEndOfRIB(silent)
	return s
}

// silentNames is how many sessions are named of those that have not brought their End-of-RIB; caracal peers names all.
const silentNames = 5

func noEndOfRIB(names []string) string {
	more := ""
	if n := len(names) - silentNames; n > 0 {
		names, more = names[:silentNames], fmt.Sprintf(" and %d more", n)
	}
	if len(names) == 0 {
		return ""
	}
	return "no End-of-RIB from " + strings.Join(names, ", ") + more
}

// devices is every wanted tunnel device.
func (d *daemon) devices() []inspect.DeviceStatus {
	return deviceRows(d.programmer.Devices(), d.programmer.EachNeighbour)
}

// deviceRows are devices with how many of their permanent neighbour and FDB entries stand, and what is wrong with the first that does not. Entries
// may come in any order.
func deviceRows(devices []routes.DeviceStatus, each func(func(*routes.NeighbourStatus))) []inspect.DeviceStatus {
	var out []inspect.DeviceStatus
	index, first := map[string]int{}, make([]*routes.NeighbourStatus, len(devices))
	for _, s := range devices {
		index[s.Link.Name] = len(out)
		out = append(out, inspect.DeviceStatus{Name: s.Link.Name, Kind: s.Link.Kind, Owner: s.Owner, Outcome: s.Outcome, Detail: s.Detail,
			MTU: s.MTU, Addresses: s.Addresses})
	}
	each(func(n *routes.NeighbourStatus) {
		i, ok := index[n.Neighbour.Device]
		if !ok {
			return
		}
		out[i].NeighboursWanted++
		if n.Outcome == routes.Installed {
			out[i].NeighboursInstalled++
		} else if n.Detail != "" && (first[i] == nil || n.Compare(first[i]) < 0) {
			kept := *n
			first[i] = &kept
		}
	})
	for i, n := range first {
		if n == nil || out[i].Detail != "" {
			continue
		}
		out[i].Detail = fmt.Sprintf("neighbour %s: %s", n.Neighbour.Addr, n.Detail)
		if n.Neighbour.FDB {
			out[i].Detail = fmt.Sprintf("FDB entry of %s: %s", n.Neighbour.Addr, n.Detail)
		}
	}
	return out
}
