package daemon

import (
	"fmt"
	"slices"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/vxlan"
)

// view is what inspection sees of the last plan.
type view struct {
	state    *cluster.State
	inSync   bool
	storeErr error
	suspect  string    // why what was read last may not be the truth, "" for no reason
	held     *held     // what the rails hold back, nil for nothing
	stale    time.Time // of the copy that is planned by, zero for the datastore itself
	backend  cluster.Backend
	vteps    []vxlan.VTEP
	problems []cluster.Problem
	planned  bool
	bgpDone  bool
	services serviceView
	host     *routes.Host // as it was planned by, nil before
}

// View returns what inspection sees.
func (c *controller) View() view {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view
}

// show publishes the view and logs each problem that was not there before, and each that is gone.
func (c *controller) show(v view) {
	if v.state != nil {
		v.problems = append(slices.Clone(v.state.Problems()), v.problems...)
	}
	c.mu.Lock()
	old := c.view
	c.view = v
	c.mu.Unlock()
	for _, p := range v.problems {
		if !slices.Contains(old.problems, p) {
			c.log.Warn("problem in the datastore", logObject, p.Object, logField, p.Field, logText, p.Text, logFile, fileLine(p))
		}
	}
	for _, p := range old.problems {
		if !slices.Contains(v.problems, p) {
			c.log.Info("problem in the datastore is mended", logObject, p.Object, logField, p.Field)
		}
	}
	switch {
	case v.held != nil && old.held == nil:
		c.log.Error("a state of the datastore is not acted upon", logText, v.held.String())
	case v.held == nil && old.held != nil:
		c.log.Warn("the states of the datastore are acted upon again")
	}
	if (v.storeErr == nil) != (old.storeErr == nil) {
		if v.storeErr != nil {
			c.log.Error("datastore cannot be read, the last good state stays", logErr, v.storeErr)
		} else {
			c.log.Info("datastore can be read again")
		}
	}
}

func fileLine(p cluster.Problem) string {
	if p.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}
