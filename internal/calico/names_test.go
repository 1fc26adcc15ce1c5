package calico

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestBlockName(t *testing.T) {
	for in, want := range map[string]string{
		"10.244.1.0/26":      "10-244-1-0-26",
		"fd00:10:244::/122":  "fd00-10-244---122",
		"192.168.255.192/32": "192-168-255-192-32",
	} {
		if got := BlockName(netip.MustParsePrefix(in)); got != want {
			t.Errorf("BlockName(%s) = %q, want %q", in, got, want)
		}
	}
}

func TestAffinityName(t *testing.T) {
	cidr := netip.MustParsePrefix("10.244.1.0/26")
	if got := AffinityName("node-a", cidr); got != "node-a-10-244-1-0-26" {
		t.Errorf("got %q", got)
	}
	// 252 characters fit, 253 do not.
	fits := strings.Repeat("h", 252-len("-10-244-1-0-26"))
	if got := AffinityName(fits, cidr); got != fits+"-10-244-1-0-26" {
		t.Errorf("a name of 252 characters was shortened to %q", got)
	}
	got := AffinityName(fits+"h", cidr)
	if len(got) != 252 || !strings.HasPrefix(got, strings.Repeat("h", 226)+"-10-244-1-0-26-") {
		t.Errorf("a name of 253 characters became %q (%d)", got, len(got))
	}
	if other := AffinityName(fits+"i", cidr); other == got {
		t.Errorf("two hosts have the name %q", got)
	}
}

func TestHostnameHash(t *testing.T) {
	const want = "PY3TQE2E3XMTETLM2MJO3UITKPFB27YUJ4T4E5XGPEJON3SM4QAA"
	if got := HostnameHash("node-a"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestStringBool(t *testing.T) {
	for in, want := range map[string]bool{`true`: true, `"true"`: true, `false`: false, `"false"`: false, `""`: false} {
		var y, j StringBool
		if err := yaml.Unmarshal([]byte(in), &y); err != nil || bool(y) != want {
			t.Errorf("YAML %s: %v, %v", in, y, err)
		}
		if err := json.Unmarshal([]byte(in), &j); err != nil || bool(j) != want {
			t.Errorf("JSON %s: %v, %v", in, j, err)
		}
	}
	var b StringBool
	if yaml.Unmarshal([]byte(`maybe`), &b) == nil || json.Unmarshal([]byte(`"maybe"`), &b) == nil {
		t.Error("maybe was accepted")
	}
	out, err := yaml.Marshal(struct{ B StringBool }{true})
	if err != nil || string(out) != "b: true\n" {
		t.Errorf("written as %q, %v", out, err)
	}
}

func TestNewKnowsEveryKind(t *testing.T) {
	if len(Kinds()) != 15 {
		t.Fatalf("%d kinds", len(Kinds()))
	}
	for _, k := range Kinds() {
		o, ok := New(k)
		if !ok || o.Kind() != k || o.Meta() == nil {
			t.Errorf("New(%s) = %v, %v", k, o, ok)
		}
	}
	if _, ok := New("NetworkPolicy"); ok {
		t.Error("New knows a kind that is not read")
	}
}
