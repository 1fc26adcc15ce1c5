package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Task is one long-running part of the daemon.
type Task interface {
	// Run works until ctx ends, then returns nil or ctx's error. Any other error stops the daemon.
	Run(ctx context.Context) error
	// String names the task in logs and errors.
	String() string
}

// stage is a group of tasks that stop together.
type stage []Task

// stopTimeout bounds how long one stage may take to stop; a task that hangs must not keep a pod from ending.
const stopTimeout = 5 * time.Second

// runStages runs every task of every stage at once and, when ctx ends or a task fails, stops the stages one after the other, in
// the order given. The order matters: the route programmer must have stopped before BGP sessions close, or it would
// withdraw what the closing sessions no longer announce (invariant 4). It returns the first failure.
func runStages(ctx context.Context, stages []stage) error {
	failed := make(chan error, 1)
	var running []*runningStage
	for _, s := range stages {
		running = append(running, startStage(s, failed))
	}
	var first error
	select {
	case <-ctx.Done():
	case first = <-failed:
	}
	for _, r := range running {
		if err := r.stop(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

type runningStage struct {
	stage  stage
	cancel context.CancelFunc
	done   chan struct{}
}

func startStage(s stage, failed chan<- error) *runningStage {
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningStage{stage: s, cancel: cancel, done: make(chan struct{})}
	var wg sync.WaitGroup
	for _, t := range s {
		wg.Go(func() {
			err := t.Run(ctx)
			switch {
			case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
				return
			case err == nil:
				err = errors.New("ended by itself")
			}
			select {
			case failed <- fmt.Errorf("%s: %w", t, err):
			default: // a failure is already being handled
			}
		})
	}
	go func() { wg.Wait(); close(r.done) }()
	return r
}

func (r *runningStage) stop() error {
	r.cancel()
	select {
	case <-r.done:
		return nil
	case <-time.After(stopTimeout):
		return fmt.Errorf("%v did not stop within %v", r.stage, stopTimeout)
	}
}
