package calico

import (
	"math"
	"strconv"
)

// AnnotationMaxPrefixes bounds how many prefixes each session of a BGPPeer, or, on the BGPConfiguration default, of the mesh, may bring; one
// that brings more is ended and tried again minutes later. Calico has no field for it.
const AnnotationMaxPrefixes = "caracal.net/max-prefixes"

// maxPrefixes reads the annotation; 0 is no bound.
func (c *check) maxPrefixes(annotations map[string]string) uint32 {
	text, ok := annotations[AnnotationMaxPrefixes]
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 || n > math.MaxInt32 {
		c.add("metadata.annotations["+AnnotationMaxPrefixes+"]", "%q is not a number of prefixes: write one from 1 to %d, or leave it out for no bound", text, math.MaxInt32)
		return 0
	}
	return uint32(n)
}
