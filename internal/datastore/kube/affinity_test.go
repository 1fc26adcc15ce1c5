package kube

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/caracal-net/caracal/internal/calico"
)

// randomAffinity is a claim as an API server sends it, or with something odd in it.
func randomAffinity(r *rand.Rand) (text string, odd bool) {
	pick := func(good, bad []string) string {
		if len(bad) > 0 && r.IntN(12) == 0 {
			odd = true
			return bad[r.IntN(len(bad))]
		}
		return good[r.IntN(len(good))]
	}
	return fmt.Sprintf(`{"apiVersion":"x/v1","kind":"BlockAffinity","metadata":{"annotations":{"projectcalico.org/metadata":"{\"labels\":{}}"},"name":%s,"uid":"u","resourceVersion":"3",`+
		`"managedFields":[{"f":"\"}"}]},"spec":{"cidr":%s,"deleted":%s,"node":%s,"state":%s,"type":%s%s}}`,
		pick([]string{`"a-10-0-0-0-26"`}, []string{`"b"`, `"a-10-0-0-\u0030-26"`}), pick([]string{`"10.0.0.0/26"`}, []string{`"10.0.0.1/26"`, `7`, `null`}),
		pick([]string{`"false"`, `false`, `"true"`, `true`}, []string{`"yes"`, `null`, `7`, `""`}), pick([]string{`"a"`}, []string{`""`, `[]`}),
		pick([]string{`"confirmed"`, `"pending"`, `"pendingDeletion"`, `""`}, []string{`"odd"`, `null`}), pick([]string{`"host"`, `""`, `"virtual"`}, []string{`"odd"`}),
		pick([]string{``, `,"more":{"x":[1]}`}, []string{`,"node":"b"`})), odd
}

// TestReadAffinity: what the quick way makes of a claim, the slow way makes of it too; and it does read what Calico writes.
func TestReadAffinity(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	quick, claims := 0, 0
	for range 3000 {
		text, odd := randomAffinity(r)
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		want, err := classic.toItem(calico.KindBlockAffinity, u)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := readAffinity([]byte(text))
		if !ok {
			if !odd {
				t.Fatalf("not read: %s", text)
			}
			continue
		}
		quick++
		if got.word != nil {
			claims++
		}
		if !reflect.DeepEqual(got.word, want.word) || len(want.problems) > 0 || got.Name != want.Name || got.UID != want.UID || got.ResourceVersion != want.ResourceVersion {
			t.Fatalf("%s\nis read as %+v, slowly as %+v, %v", text, got, want, want.problems)
		}
	}
	if quick < 1500 || claims < 500 {
		t.Errorf("of 3000 claims %d were read the quick way, %d with a word", quick, claims)
	}
}
