package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/caracal-net/caracal/internal/cluster"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// callTimeout bounds one question to a daemon; the guest kernel's machine is ten times slower than a plain one.
const callTimeout = 10 * time.Second

// ask opens a connection to a node's daemon for one question. Daemons come and go, so no connection is kept.
func (c *Cluster) ask(ctx context.Context, node string, f func(context.Context, caracalv1.InspectionClient) error) error {
	conn, err := grpc.NewClient("unix:"+c.Socket(node), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("ask %s: %w", node, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := f(ctx, caracalv1.NewInspectionClient(conn)); err != nil {
		return fmt.Errorf("ask %s: %w", node, err)
	}
	return nil
}

// control has a node's daemon do something.
func (c *Cluster) control(ctx context.Context, node string, f func(context.Context, caracalv1.ControlClient) error) error {
	conn, err := grpc.NewClient("unix:"+c.Socket(node), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("command %s: %w", node, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := f(ctx, caracalv1.NewControlClient(conn)); err != nil {
		return fmt.Errorf("command %s: %w", node, err)
	}
	return nil
}

// Status asks a node's daemon how it is doing.
func (c *Cluster) Status(ctx context.Context, node string) (st *caracalv1.GetStatusResponse, err error) {
	err = c.ask(ctx, node, func(ctx context.Context, cl caracalv1.InspectionClient) error {
		st, err = cl.GetStatus(ctx, &caracalv1.GetStatusRequest{})
		return err
	})
	return st, err
}

// Routes asks a node's daemon for its routes.
func (c *Cluster) Routes(ctx context.Context, node string) (list []*caracalv1.Route, err error) {
	err = c.ask(ctx, node, func(ctx context.Context, cl caracalv1.InspectionClient) error {
		stream, err := cl.ListRoutes(ctx, &caracalv1.ListRoutesRequest{})
		if err != nil {
			return err
		}
		return drain(stream.Recv, func(m *caracalv1.ListRoutesResponse) { list = append(list, m.GetRoutes()...) })
	})
	return list, err
}

// Peers asks a node's daemon for its BGP sessions.
func (c *Cluster) Peers(ctx context.Context, node string) (list []*caracalv1.Peer, err error) {
	err = c.ask(ctx, node, func(ctx context.Context, cl caracalv1.InspectionClient) error {
		stream, err := cl.ListPeers(ctx, &caracalv1.ListPeersRequest{})
		if err != nil {
			return err
		}
		return drain(stream.Recv, func(m *caracalv1.ListPeersResponse) { list = append(list, m.GetPeers()...) })
	})
	return list, err
}

func drain[M any](recv func() (M, error), take func(M)) error {
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		take(m)
	}
}

// WaitSettled waits until every running daemon reports that it does all it is asked to do: in sync, mesh sessions up, every
// route and device as wanted. It returns how long that took; when ctx ends first the error says what is missing where.
func (c *Cluster) WaitSettled(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	var g errgroup.Group
	for _, n := range c.Plan.Members() {
		if c.PID(n.Name) == 0 {
			continue
		}
		g.Go(func() error {
			return poll(ctx, 20*time.Millisecond, func() error { return c.settled(ctx, n.Name) })
		})
	}
	err := g.Wait()
	return time.Since(began), err
}

func (c *Cluster) settled(ctx context.Context, node string) error {
	st, err := c.Status(ctx, node)
	if err != nil {
		return err
	}
	if r := st.GetReadiness(); !r.GetReady() {
		return fmt.Errorf("%s waits for %s", node, strings.Join(r.GetWaitingFor(), "; "))
	}
	for _, n := range st.GetCounts() {
		if s := n.GetState(); s != caracalv1.RouteState_ROUTE_STATE_INSTALLED && s != caracalv1.RouteState_ROUTE_STATE_UNROUTABLE &&
			s != caracalv1.RouteState_ROUTE_STATE_LOST {
			return fmt.Errorf("%s has %d %s routes in state %s", node, n.GetRoutes(), n.GetOwner(), s)
		}
	}
	for _, d := range st.GetDevices() {
		if d.GetState() != caracalv1.RouteState_ROUTE_STATE_INSTALLED || d.GetNeighboursInstalled() != d.GetNeighboursWanted() {
			return fmt.Errorf("%s: device %s is in state %s, %d of %d neighbours", node, d.GetName(), d.GetState(), d.GetNeighboursInstalled(), d.GetNeighboursWanted())
		}
	}
	if st.GetBackend() != string(cluster.BackendBird) {
		return nil
	}
	return c.meshUp(ctx, node)
}

// meshUp reports the first session to another member that is not established. Explicit peers may be down: one of
// the scenarios has a peer that never speaks sense.
func (c *Cluster) meshUp(ctx context.Context, node string) error {
	peers, err := c.Peers(ctx, node)
	if err != nil {
		return err
	}
	mesh := 0
	for _, p := range peers {
		if p.GetNode() == "" || c.PID(p.GetNode()) == 0 {
			continue
		}
		if p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED {
			return fmt.Errorf("%s: session %s is %s (%s)", node, p.GetName(), p.GetState(), p.GetLastError())
		}
		mesh++
	}
	running := 0
	for _, m := range c.Plan.Members() {
		if m.Name != node && c.PID(m.Name) != 0 {
			running++
		}
	}
	if mesh < running {
		return fmt.Errorf("%s has %d sessions with %d other members", node, mesh, running)
	}
	return nil
}

// Converge waits until the cluster is settled and every workload answers every other; it returns the time until the latter.
func (c *Cluster) Converge(ctx context.Context) (time.Duration, error) {
	took, err := WaitReachable(ctx, c.Endpoints(nil))
	if err != nil {
		return took, errors.Join(err, c.why(ctx))
	}
	if _, err := c.WaitSettled(ctx); err != nil {
		return took, err
	}
	return took, nil
}

// why gathers what daemons complain of, for the error of a cluster that does not converge.
func (c *Cluster) why(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	var all []error
	for _, n := range c.Plan.Members() {
		if c.PID(n.Name) == 0 {
			all = append(all, fmt.Errorf("the daemon of %s does not run", n.Name))
		} else if err := c.settled(ctx, n.Name); err != nil {
			all = append(all, err)
		}
		for _, line := range c.Complaints(n.Name, 3) {
			all = append(all, fmt.Errorf("%s logged: %s", n.Name, line))
		}
	}
	return errors.Join(all...)
}
