package lab

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/internal/calico"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// What a step may want of those who are elected.

func (e *elections) some(elected []string) error {
	if len(elected) != 2 {
		return fmt.Errorf("elected %v, want two", elected)
	}
	return nil
}

func (e *elections) not(nodes ...string) func([]string) error {
	return func(elected []string) error {
		for _, n := range nodes {
			if slices.Contains(elected, n) {
				return fmt.Errorf("elected %v, want another than %s", elected, n)
			}
		}
		return e.some(elected)
	}
}

func (e *elections) as(want []string) func([]string) error {
	return func(elected []string) error {
		if !slices.Equal(elected, want) {
			return fmt.Errorf("elected %v, want %v", elected, want)
		}
		return nil
	}
}

// What may happen to a node.

func (e *elections) label(ctx context.Context, node string, labels map[string]any) error {
	return e.opts.Kubernetes.PatchNode(ctx, node, map[string]any{"metadata": map[string]any{"labels": labels}})
}

func (e *elections) settings(ctx context.Context, text string) error {
	return change(ctx, e.store, calico.KindBGPConfiguration, calico.DefaultName, func(c *calico.BGPConfiguration) {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[calico.AnnotationReflectors] = text
	})
}

func (e *elections) cordon(node string, yes bool) func(context.Context) error {
	return func(ctx context.Context) error {
		return e.opts.Kubernetes.PatchNode(ctx, node, map[string]any{"spec": map[string]any{"unschedulable": yes}})
	}
}

func (e *elections) drain(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		return e.control(ctx, node, func(ctx context.Context, c caracalv1.ControlClient) error {
			_, err := c.Drain(ctx, &caracalv1.DrainRequest{Wait: durationpb.New(time.Second)})
			return err
		})
	}
}

func (e *elections) undrain(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		return e.control(ctx, node, func(ctx context.Context, c caracalv1.ControlClient) error {
			_, err := c.Undrain(ctx, &caracalv1.UndrainRequest{})
			return err
		})
	}
}

// restart replaces the daemon of a node; what the others have found meanwhile must not change for a moment.
func (e *elections) restart(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		witness := e.Plan.Router.Name
		before, err := e.elected(ctx, witness)
		if err != nil {
			return err
		}
		if err := e.Stop(ctx, node, syscall.SIGTERM); err != nil {
			return err
		}
		if err := e.Start(node); err != nil {
			return err
		}
		whole, cancel := context.WithTimeout(ctx, 5*time.Second) // the daemon has read what it needs to within one
		defer cancel()
		for settled := false; whole.Err() == nil || !settled; {
			now, err := e.elected(ctx, witness)
			if err == nil && !slices.Equal(now, before) {
				err = fmt.Errorf("%s are elected for a while, before it was %s", now, before)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			st, err := e.Status(ctx, node)
			settled = err == nil && st.GetReadiness().GetReady()
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // between two questions
			}
		}
		return nil
	}
}
