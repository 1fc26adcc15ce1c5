package routes

// nexthopGone looks at the routes again when a nexthop object went: those of ours that led to it, by another program's doing, went
// along, in IPv4 without an event. Where no route of ours leads to an object nothing is read.
func (p *Programmer) nexthopGone() {
	if !p.forms.any(func(f *form) bool { return f.nhid != 0 }) {
		return
	}
	for family := range p.dumps {
		p.readRoutes(family, "a nexthop object went")
	}
}
