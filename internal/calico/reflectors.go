package calico

import (
	"strconv"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// AnnotationReflectors, on the BGPConfiguration default, has a large mesh elect route reflectors of its own: "on", "off", or settings such as
// "above=100,count=3,zone=topology.kubernetes.io/zone,selector=!has(spot)". The selector comes last: it may hold commas.
const AnnotationReflectors = "caracal.net/route-reflectors"

// Calico's documentation advises against a mesh of more than about a hundred nodes. Of three reflectors in three zones any two may be gone.
const (
	defaultMeshLimit  = 100
	defaultReflectors = 3
	maxReflectors     = 100
	maxMeshLimit      = 100_000
	// zoneLabel is Kubernetes' well-known label of failure domains.
	zoneLabel = "topology.kubernetes.io/zone"
)

// reflectors reads the annotation.
func (c *check) reflectors(annotations map[string]string) cluster.Reflection {
	const field = "metadata.annotations[" + AnnotationReflectors + "]"
	text, ok := annotations[AnnotationReflectors]
	if !ok || text == "off" {
		return cluster.Reflection{}
	}
	r := cluster.Reflection{Above: defaultMeshLimit, Count: defaultReflectors, Zone: zoneLabel}
	if text == "on" {
		return r
	}
	for rest := text; rest != ""; {
		rest = strings.TrimSpace(rest)
		if selector, last := strings.CutPrefix(rest, "selector="); last {
			if _, err := ParseSelector(selector); err != nil {
				c.add(field, "%v", err)
				return cluster.Reflection{}
			}
			r.Selector = selector
			return r
		}
		var setting string
		setting, rest, _ = strings.Cut(rest, ",")
		key, value, _ := strings.Cut(strings.TrimSpace(setting), "=")
		if !setReflection(&r, key, value) {
			c.add(field, "%q is not known: write on, off, or settings as in above=100,count=3,zone=%s,selector=all(), with above up to %d, count from 1 to %d, and the selector last",
				strings.TrimSpace(setting), zoneLabel, maxMeshLimit, maxReflectors)
			return cluster.Reflection{}
		}
	}
	return r
}

// setReflection takes over one setting and reports whether it has a meaning.
func setReflection(r *cluster.Reflection, key, value string) bool {
	switch key {
	case "above":
		n, err := strconv.Atoi(value)
		r.Above = n
		return err == nil && n >= 0 && n <= maxMeshLimit
	case "count":
		n, err := strconv.Atoi(value)
		r.Count = n
		return err == nil && n >= 1 && n <= maxReflectors
	case "zone":
		r.Zone = value
		return value != ""
	}
	return false
}
