package calico

import "testing"

// TestMaxPrefixes: the annotation is of a BGPPeer's sessions, or of the mesh's.
func TestMaxPrefixes(t *testing.T) {
	for text, want := range map[string]uint32{"": 0, "1": 1, "1000": 1000} {
		meta := ObjectMeta{Name: "default"}
		if text != "" {
			meta.Annotations = map[string]string{AnnotationMaxPrefixes: text}
		}
		peer, problems := (&BGPPeer{ObjectMeta: meta, Spec: BGPPeerSpec{PeerSelector: "all()"}}).Peer()
		if len(problems) > 0 || peer.MaxPrefixes != want {
			t.Errorf("BGPPeer %q: %+v, %v, want %d", text, peer, problems, want)
		}
		conf, problems := (&BGPConfiguration{ObjectMeta: meta}).Config()
		if len(problems) > 0 || conf.MeshMaxPrefixes != want {
			t.Errorf("BGPConfiguration %q: %d, %v, want %d", text, conf.MeshMaxPrefixes, problems, want)
		}
	}
}
