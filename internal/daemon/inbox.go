package daemon

import (
	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/routes"
)

// inbox holds what has happened since the last plan.
type inbox struct {
	update    datastore.Update
	host      *routes.Host
	learned   []bgp.Learned
	news      bool           // there is other news than what was learned
	bgpInSync bool           // the Speaker has heard every peer out since it was started
	release   bool           // somebody wants what the rails hold to happen
	leaving   bgp.Leaving    // how far the node is to leave
	plane     *bgp.DataPlane // what of the service proxy is verified, nil before the first answer
}

// The methods that fill the inbox; any goroutine may call them, none waits for a plan.

func (c *controller) setUpdate(u datastore.Update) { c.post(func(in *inbox) { in.update = u }) }

func (c *controller) setLeaving(l bgp.Leaving) { c.post(func(in *inbox) { in.leaving = l }) }

func (c *controller) setHost(h *routes.Host) { c.post(func(in *inbox) { in.host = h }) }

// addLearned takes over the list, whose paths must not be written to any more.
func (c *controller) addLearned(l []bgp.Learned) {
	c.put(func(in *inbox) {
		if in.learned == nil {
			in.learned = l
		} else {
			in.learned = append(in.learned, l...)
		}
	})
}

func (c *controller) setBGPInSync() { c.post(func(in *inbox) { in.bgpInSync = true }) }

// post puts something into the inbox that anything may depend on, and put something that is no more than it says.
func (c *controller) post(f func(*inbox)) {
	c.put(func(in *inbox) {
		in.news = true
		f(in)
	})
}

func (c *controller) put(f func(*inbox)) {
	c.mu.Lock()
	f(&c.in)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox of what is consumed once: learned paths. The rest is the newest there is.
func (c *controller) take() inbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.in
	c.in.learned, c.in.news, c.in.release = nil, false, false
	return in
}

// host returns the last picture of the host, nil before the first.
func (c *controller) host() *routes.Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.host
}
