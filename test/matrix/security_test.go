package matrix

import (
	"fmt"
	"strings"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/peers"
)

// secret writes the node's password.
func (c *cell) secret(password string) {
	c.write("secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: bgp, namespace: kube-system}\nstringData: {tor: "+password+"}\n")
}

// remedy wants words in what is told of a session.
func remedy(words ...string) func(*caracalv1.Peer) error {
	return func(p *caracalv1.Peer) error {
		for _, w := range words {
			if !strings.Contains(p.GetLastError()+" "+p.GetRemedy(), w) {
				return fmt.Errorf("want to be told of %q", w)
			}
		}
		return nil
	}
}

func (c *cell) routerPassword(p string) { c.neighbours(func(n *peers.Neighbour) { n.Password = p }) }

// md5: right, wrong at one end after a change at the other, changed there too.
func md5(c *cell) {
	c.password = true
	c.secret("salt")
	c.routerPassword("salt")
	c.run()
	c.routerPassword("pepper")
	c.replaceRouter()
	c.down(remedy("password"))
	c.secret("pepper")
	c.up()
	c.exchanged()
}

func ttlSecurity(c *cell) {
	c.spec = ", ttlSecurity: 1"
	near := func(n *peers.Neighbour) { n.TTLSecurity = true }
	c.neighbours(near)
	c.run()
	c.neighbours(func(n *peers.Neighbour) { n.TTLSecurity = false }) // its packets look as if they came from afar
	c.replaceRouter()
	c.down(remedy("TTL"))
	c.neighbours(near)
	c.replaceRouter()
	c.up()
	c.exchanged()
}
