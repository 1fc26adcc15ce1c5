package walls_test

import (
	"strings"
	"testing"

	"github.com/caracal-net/caracal/test/walls"
)

func TestTreeKeepsItsWalls(t *testing.T) {
	pkgs, err := walls.List("../..", "./...")
	if err != nil {
		t.Fatal(err)
	}
	// The rooms the plan names must be there, so that a wrong directory or pattern cannot pass.
	seen := map[string]bool{}
	for _, p := range pkgs {
		seen[strings.TrimPrefix(p.ImportPath, walls.Module+"/")] = true
	}
	for _, want := range []string{"routes", "bgp", "internal/cluster", "internal/kernel", "internal/datastore"} {
		if !seen[want] {
			t.Errorf("go list shows no package %s", want)
		}
	}
	for _, breach := range walls.Check(pkgs) {
		t.Error(breach)
	}
	big, err := walls.Oversized(pkgs)
	if err != nil {
		t.Log(err)
	}
	for _, line := range big {
		t.Log(line)
	}
}

func TestCheckRejects(t *testing.T) {
	at := func(p string) string { return walls.Module + "/" + p }
	for _, c := range []struct {
		name string
		pkg  walls.Package
		want string // part of the breach; "" = none
	}{
		{"good", walls.Package{ImportPath: at("vxlan"), Imports: []string{at("routes"), at("internal/cluster"), "fmt"}}, ""},
		{"own tree", walls.Package{ImportPath: at("proto/caracal/v1"), Imports: []string{at("proto/caracal/v2")}}, ""},
		{"upstream", walls.Package{ImportPath: at("routes"), Imports: []string{at("vxlan")}}, "routes imports vxlan"},
		{"sibling", walls.Package{ImportPath: at("vxlan"), Imports: []string{at("ipip")}}, "vxlan imports ipip"},
		{"through a third", walls.Package{ImportPath: at("ipip"), Deps: []string{at("bgp/gobgp")}}, "ipip reaches bgp/gobgp"},
		{"in a test", walls.Package{ImportPath: at("bgp"), XTestImports: []string{at("vxlan")}}, "bgp reaches vxlan"},
		{"gobgp outside", walls.Package{ImportPath: at("bgp"), Imports: []string{"github.com/osrg/gobgp/v4/pkg/server"}}, "only bgp/gobgp and test/peers/plaingobgp may"},
		{"gobgp in a test", walls.Package{ImportPath: at("internal/daemon"), TestImports: []string{"github.com/osrg/gobgp/v4/api"}}, "only bgp/gobgp and test/peers/plaingobgp may"},
		{"gobgp inside", walls.Package{ImportPath: at("bgp/gobgp"), Imports: []string{"github.com/osrg/gobgp/v4/pkg/server", at("bgp")}}, ""},
		{"netlink outside", walls.Package{ImportPath: at("internal/lab"), Imports: []string{"github.com/vishvananda/netlink"}}, "only internal/kernel may"},
		{"netlink below", walls.Package{ImportPath: at("internal/kernel"), Imports: []string{"github.com/vishvananda/netlink/nl"}}, ""},
		{"its namesake", walls.Package{ImportPath: at("internal/lab"), Imports: []string{"github.com/vishvananda/netlinkish"}}, ""},
		{"no room", walls.Package{ImportPath: at("pkg/util")}, "in no room"},
		{"no doc.go", walls.Package{ImportPath: at("vxlan"), Name: "vxlan", GoFiles: []string{"plan.go"}}, "no doc.go"},
		{"kernel knows nobody", walls.Package{ImportPath: at("internal/kernel"), Imports: []string{at("routes")}}, "internal/kernel imports routes"},
		{"production on test", walls.Package{ImportPath: at("internal/lab"), Imports: []string{at("test/need")}}, "internal/lab imports test/need"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(walls.Check([]walls.Package{c.pkg}), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got breaches %q, want one with %q", got, c.want)
			}
		})
	}
}
