package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// lastChoice is the metric of a route that is about to go (RFC 8326).
const lastChoice = bgp.MaxPref - bgp.ShutdownPref

func overBGP(s Spec) (bool, string) {
	return s.Backend == cluster.BackendBird && s.Nodes >= 2, "needs BGP and two nodes or more"
}

// drained has a node leave and come back, and its daemon restart meanwhile. Its workloads go on running, so no packet may be lost.
func drained(ctx context.Context, r *run) error {
	node := r.victim()
	_, err := r.probed(ctx, "of all pairs", r.Endpoints(nil), lossless, func() error {
		began := time.Now()
		if err := r.control(ctx, node, func(ctx context.Context, c caracalv1.ControlClient) error {
			m, err := c.Drain(ctx, &caracalv1.DrainRequest{Wait: durationpb.New(time.Second)})
			if err == nil && m.GetLeaving().GetStep() != caracalv1.Leaving_STEP_WITHDRAWN {
				err = fmt.Errorf("drain returns at %v", m.GetLeaving().GetStep())
			}
			return err
		}); err != nil {
			return err
		}
		if err := r.waitChoice(ctx, node, true); err != nil {
			return err
		}
		r.note("everybody's last choice, and withdrawn, after", "%s", ms(time.Since(began)))
		if err := r.Stop(ctx, node, syscall.SIGTERM); err != nil {
			return err
		}
		if err := r.Start(node); err != nil {
			return err
		}
		if _, err := r.WaitSettled(ctx); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		if st, err := r.Status(ctx, node); err != nil || st.GetLeaving().GetStep() != caracalv1.Leaving_STEP_WITHDRAWN {
			return fmt.Errorf("after a restart of its daemon the node is %v, %w", st.GetLeaving(), err)
		}
		if err := r.waitChoice(ctx, node, true); err != nil {
			return fmt.Errorf("after a restart of its daemon: %w", err)
		}
		began = time.Now()
		if err := r.control(ctx, node, func(ctx context.Context, c caracalv1.ControlClient) error {
			_, err := c.Undrain(ctx, &caracalv1.UndrainRequest{})
			return err
		}); err != nil {
			return err
		}
		if err := r.waitChoice(ctx, node, false); err != nil {
			return err
		}
		r.note("and back after", "%s", ms(time.Since(began)))
		return nil
	})
	return err
}

// waitChoice waits until every other node has the routes that lead to one as its last choice, or none of them.
func (r *run) waitChoice(ctx context.Context, node string, last bool) error {
	return poll(ctx, 20*time.Millisecond, func() error {
		seen := 0
		for _, n := range r.Plan.Nodes {
			if n.Name == node {
				continue
			}
			list, err := r.Routes(ctx, n.Name)
			if err != nil {
				return err
			}
			for _, m := range list {
				if m.GetOwner() != string(routes.OwnerBGP) || m.GetReason().GetNode() != node {
					continue
				}
				seen++
				if is := m.GetMetric() == lastChoice; is != last || m.GetState() != caracalv1.RouteState_ROUTE_STATE_INSTALLED {
					return fmt.Errorf("%s has %s with metric %d (%v)", n.Name, m.GetPrefix(), m.GetMetric(), m.GetState())
				}
			}
		}
		if seen == 0 && slices.ContainsFunc(r.Plan.Pools, func(p Pool) bool { return p.Encapsulation != cluster.VXLAN }) {
			return fmt.Errorf("nobody has a route to %s", node)
		}
		return nil
	})
}
