package calico

import (
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

func TestBFDAnnotation(t *testing.T) {
	ms := time.Millisecond
	for text, want := range map[string]cluster.BFD{
		"off":                         {},
		"on":                          {Interval: 50 * ms, Multiplier: 3},
		"interval=300ms":              {Interval: 300 * ms, Multiplier: 3},
		"multiplier=5, hops=multihop": {Interval: 50 * ms, Multiplier: 5, Hops: cluster.BFDMulti},
		"hops=single":                 {Interval: 50 * ms, Multiplier: 3, Hops: cluster.BFDSingle},
		"hops=auto,interval=10ms":     {Interval: 10 * ms, Multiplier: 3},
	} {
		meta := ObjectMeta{Name: "default", Annotations: map[string]string{AnnotationBFD: text}}
		peer, problems := (&BGPPeer{ObjectMeta: meta, Spec: BGPPeerSpec{PeerSelector: "all()"}}).Peer()
		if len(problems) > 0 || peer.BFD != want {
			t.Errorf("BGPPeer %q: %+v, %v, want %+v", text, peer, problems, want)
		}
		conf, problems := (&BGPConfiguration{ObjectMeta: meta}).Config()
		if len(problems) > 0 || conf.MeshBFD != want {
			t.Errorf("BGPConfiguration %q: %+v, %v, want %+v", text, conf.MeshBFD, problems, want)
		}
	}
	for _, text := range []string{"", "yes", "interval=9ms", "interval=61s", "interval=50", "multiplier=256", "hops=2", "interval=50ms,", "mode=fast"} {
		peer, problems := (&BGPPeer{ObjectMeta: ObjectMeta{Annotations: map[string]string{AnnotationBFD: text}}, Spec: BGPPeerSpec{PeerSelector: "all()"}}).Peer()
		if len(problems) != 1 || peer != nil {
			t.Errorf("%q: %+v, %v, want one problem and no peer", text, peer, problems)
		}
		conf, problems := (&BGPConfiguration{ObjectMeta: ObjectMeta{Name: "default", Annotations: map[string]string{AnnotationBFD: text}}}).Config()
		if len(problems) != 1 || conf.MeshBFD != (cluster.BFD{}) {
			t.Errorf("%q: %+v, %v, want one problem and no BFD", text, conf, problems)
		}
	}
}
