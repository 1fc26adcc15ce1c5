package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// dialTimeout is for a local socket, which answers at once or never.
	dialTimeout = 2 * time.Second
	// maxMessage is far above what the daemon sends: lists come in batches, but a status may list many problems.
	maxMessage = 64 << 20
)

// with connects to the daemon and calls f with a context that ends after the timeout.
func (c *command) with(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	return c.withoutTimeout(ctx, f)
}

func (c *command) withoutTimeout(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	if err := c.answering(); err != nil {
		return err
	}
	// No name is resolved and no proxy asked: the target is only a name for the dialer below.
	conn, err := grpc.NewClient("passthrough:///caracald",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	return c.explained(f(ctx, conn))
}

// answering reports in words why no daemon can be reached, before gRPC hides it among its own.
func (c *command) answering() error {
	conn, err := net.DialTimeout("unix", c.socket, dialTimeout)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to ask the daemon at %s: run it as root or as a member of the socket's group", c.socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no daemon answers at %s: is caracald running on this node? --socket or %s name another socket", c.socket, EnvSocket)
	}
	return fmt.Errorf("no daemon answers at %s: %w; --socket or %s name another socket", c.socket, err, EnvSocket)
}

// each calls f with every message of a stream.
func each[M any](stream grpc.ServerStreamingClient[M], err error, f func(*M) error) error {
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
	}
}
