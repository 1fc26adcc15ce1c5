package kube

import (
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/calico"
)

// readDirect reads an object of a kind that is only watched without making a tree of all that is in it. False where anything has another type
// than it should: then the slow way reads it, and says what is wrong.
func readDirect(kind calico.Kind, text []byte) (*item, bool) {
	obj, _ := calico.New(kind)
	if err := json.Unmarshal(text, obj); err != nil {
		return nil, false
	}
	m, namespace := obj.Meta(), ""
	s := scanner{text: text}
	err := s.object(func(key string) {
		if key != "metadata" {
			s.skip()
			return
		}
		s.nested(func(key string) {
			if key == "namespace" {
				namespace = strings.Clone(s.str())
			} else {
				s.skip()
			}
		})
	})
	if err != nil || m.Name == "" {
		return nil, false
	}
	m.Name = calico.FullName(namespace, m.Name)
	i := &item{ObjectMeta: metav1.ObjectMeta{Name: m.Name, UID: types.UID(m.UID), ResourceVersion: m.ResourceVersion}}
	r := calico.Resource{Kind: kind, Name: m.Name, Object: obj}
	i.word, i.problems = r.Word()
	return i, true
}
