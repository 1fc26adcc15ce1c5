package daemon

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/caracal-net/caracal/internal/inspect"
)

// A daemon that was told to stop, or killed, answers on its socket until its last thread has gone. Its successor gives it this
// long, which is more than a stop takes, before it says that there are two of them.
const (
	predecessorPatience = 2 * stopTimeout
	predecessorPoll     = 50 * time.Millisecond
)

// listen opens the gRPC socket, once a predecessor has let go of it.
func listen(ctx context.Context, path string) (net.Listener, error) {
	deadline := time.Now().Add(predecessorPatience)
	for {
		l, err := inspect.Listen(ctx, path)
		if !errors.Is(err, inspect.ErrAnswered) || time.Now().After(deadline) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(predecessorPoll):
		}
	}
}
