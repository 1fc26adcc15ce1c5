package calico

import (
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
)

func TestReflectors(t *testing.T) {
	usual := cluster.Reflection{Above: 100, Count: 3, Zone: "topology.kubernetes.io/zone"}
	chosen := usual
	chosen.Above, chosen.Count, chosen.Zone, chosen.Selector = 0, 5, "rack", "role in {'a', 'b'}"
	for text, want := range map[string]cluster.Reflection{
		"": usual, "on": usual, "off": {},
		"above=0, count=5, zone=rack, selector=role in {'a', 'b'}": chosen,
		"above=-1": {}, "count=0": {}, "zone=": {}, "many": {}, "selector=(": {}, "above=10 count=3": {},
	} {
		c := &check{}
		got := c.reflectors(map[string]string{AnnotationReflectors: text})
		if got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
		if bad := want.Count == 0 && text != "off"; bad != (len(c.problems) == 1) {
			t.Errorf("%q: problems %v", text, c.problems)
		}
	}
	if got := (&check{}).reflectors(nil); got != (cluster.Reflection{}) {
		t.Errorf("without the annotation: %+v", got)
	}
}
