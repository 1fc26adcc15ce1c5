package netns_test

import (
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
)

func TestCreateRunDelete(t *testing.T) {
	ns := need.Namespace(t)
	out, err := ns.Run("ip", "-br", "link")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out), "\n"); !strings.HasPrefix(lines[0], "lo") || strings.Contains(out, "eth0") {
		t.Fatalf("new namespace shows %q, want lo and no interface of the host", out)
	}
	if _, err := netns.Create(ns.Name); err == nil {
		t.Fatal("a second namespace of the same name was made")
	}
	if err := ns.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Delete(); err != nil {
		t.Fatalf("deleting a namespace that is gone: %v", err)
	}
	if _, err := ns.Run("true"); err == nil {
		t.Fatal("a deleted namespace could be entered")
	}
}
