package calico

import (
	"strconv"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// AnnotationBFD asks for BFD with a BGPPeer's sessions, or, on the BGPConfiguration default, with those of the mesh: "on", "off", or
// settings such as "interval=50ms,multiplier=3,hops=single". Calico has no field for it outside its commercial edition.
const AnnotationBFD = "caracal.net/bfd"

// defaultBFD finds a dead path in 150 ms.
func defaultBFD() cluster.BFD { return cluster.BFD{Interval: 50 * time.Millisecond, Multiplier: 3} }

// The bounds of a BFD interval: below, the scheduling of a busy node is taken for a dead path; above, BGP's own hold timer is as fast.
const (
	minBFDInterval = 10 * time.Millisecond
	maxBFDInterval = 60 * time.Second
)

// bfd reads the annotation.
func (c *check) bfd(annotations map[string]string) (b cluster.BFD) {
	const field = "metadata.annotations[" + AnnotationBFD + "]"
	text, ok := annotations[AnnotationBFD]
	switch {
	case !ok || text == "off":
		return b
	case text == "on":
		return defaultBFD()
	}
	b = defaultBFD()
	for _, setting := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(setting), "=")
		if !setBFD(&b, key, value) {
			c.add(field, "%q is not known: write on, off, or settings as in interval=50ms,multiplier=3,hops=single, with an interval from %v to %v, a multiplier from 1 to 255, and hops single, multihop or auto",
				strings.TrimSpace(setting), minBFDInterval, maxBFDInterval)
			return cluster.BFD{}
		}
	}
	return b
}

// setBFD takes over one setting and reports whether it has a meaning.
func setBFD(b *cluster.BFD, key, value string) bool {
	switch key {
	case "interval":
		d, err := time.ParseDuration(value)
		b.Interval = d
		return err == nil && d >= minBFDInterval && d <= maxBFDInterval
	case "multiplier":
		n, err := strconv.ParseUint(value, 10, 8)
		b.Multiplier = uint8(n)
		return err == nil && n > 0
	case "hops":
		b.Hops = cluster.BFDHops(value)
		if value == "auto" {
			b.Hops = cluster.BFDHopsAuto
		}
		return value == "auto" || b.Hops == cluster.BFDSingle || b.Hops == cluster.BFDMulti
	}
	return false
}
