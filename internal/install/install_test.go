package install_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/install"
	"github.com/caracal-net/caracal/internal/startup"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d manifests, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			in, err := install.Read(text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := in.Render(install.DefaultOptions())
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(f, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Error(diff)
			}
			consume(t, got, in)
		})
	}
}

// consume reads what was rendered as those read it who will: package calico the objects, package startup the environment.
func consume(t *testing.T, rendered []byte, in *install.Installation) {
	t.Helper()
	vars, pools, maps := map[string]string{}, 0, 0
	for dec := yaml.NewDecoder(bytes.NewReader(rendered)); ; {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		resources, problems := calico.Resources(&doc)
		for _, p := range problems {
			t.Error(p)
		}
		for i := range resources {
			word, problems := resources[i].Word()
			if word == nil || len(problems) > 0 {
				t.Errorf("%s %s: %v", resources[i].Kind, resources[i].Name, problems)
			}
			switch w := word.(type) {
			case *cluster.Pool:
				pools++
			case cluster.Backend:
				maps++
				vars["calico_backend"] = string(w)
			}
		}
		var ds struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						Containers []struct {
							Env []struct {
								Name, Value string
								ValueFrom   struct {
									ConfigMapKeyRef struct{ Key string } `yaml:"configMapKeyRef"`
								} `yaml:"valueFrom"`
							}
						}
					}
				}
			}
		}
		if err := doc.Decode(&ds); err != nil {
			t.Fatal(err)
		}
		for _, c := range ds.Spec.Template.Spec.Containers {
			for _, v := range c.Env {
				vars[v.Name] = v.Value
				if v.ValueFrom.ConfigMapKeyRef.Key == "calico_backend" {
					vars[v.Name] = vars["calico_backend"]
				}
			}
		}
	}
	if pools != len(in.Pools) || maps != 1 {
		t.Errorf("%d pools of %d, %d ConfigMaps", pools, len(in.Pools), maps)
	}
	s, err := startup.Parse(func(name string) string { return vars[name] })
	if err != nil {
		t.Fatal(err)
	}
	if s.Backend != in.Backend || !s.NoDefaultPools || !s.WaitForDatastore ||
		(s.IP.Mode == startup.Autodetect) != (in.Method4 != "") || (s.IP6.Mode == startup.Autodetect) != (in.Method6 != "") {
		t.Errorf("the environment reads as %+v", s)
	}
	if in.Method4 != "" && s.IP.Method.String() != in.Method4 || in.Method6 != "" && s.IP6.Method.String() != in.Method6 {
		t.Errorf("methods %v and %v", s.IP.Method, s.IP6.Method)
	}
}

func manifest(spec string) []byte {
	return []byte("apiVersion: operator.tigera.io/v1\nkind: Installation\nspec:\n  calicoNetwork:\n    " + strings.ReplaceAll(spec, "\n", "\n    "))
}

func TestReadRefuses(t *testing.T) {
	const pool = "spec.calicoNetwork.ipPools[0]."
	for _, tc := range []struct{ spec, want string }{
		{"bgp: Off", "spec.calicoNetwork.bgp: \"Off\" is not known: write one of Enabled, Disabled"},
		{"bgp: true", "spec.calicoNetwork.bgp: must be a string"},
		{"linuxDataplane: Windows", "spec.calicoNetwork.linuxDataplane"},
		{"clusterRoutingMode: None", "spec.calicoNetwork.clusterRoutingMode"},
		{"mtu: 12", "spec.calicoNetwork.mtu: 12 is out of range"},
		{"mtu: \"1500\"", "spec.calicoNetwork.mtu: \"1500\" is not a whole number"},
		{"ipPools: [{cidr: 10.0.0.0/16, encapsulation: Vxlan}]", pool + "encapsulation: \"Vxlan\" is not known"},
		{"ipPools: [{cidr: 10.0.0.1/16}]", pool + "cidr: 10.0.0.1/16 has bits set behind its prefix length: write 10.0.0.0/16"},
		{"ipPools: [{cidr: 10.0.0.0/16, blockSize: 12}]", pool + "blockSize"},
		{"ipPools: [{cidr: 10.0.0.0/28}]", pool + "blockSize: a block of /26 does not fit"},
		{"ipPools: [{cidr: 'fd00::/48', encapsulation: IPIP}]", pool + "encapsulation: IPIP carries IPv4 only"},
		{"ipPools: [{cidr: 10.0.0.0/16, natOutgoing: true}]", pool + "natOutgoing: must be a string"},
		{"ipPools: [{cidr: 10.0.0.0/16, nodeSelector: 'a =='}]", pool + "nodeSelector"},
		{"ipPools: [{cidr: 10.0.0.0/16, allowedUses: [Tunnels]}]", pool + "allowedUses: \"Tunnels\" is not known"},
		{"ipPools: [{cidr: 10.0.0.0/16, disableBGPExport: Enabled}]", pool + "disableBGPExport: \"Enabled\" is not a boolean"},
		{"bgp: Disabled\nipPools: [{cidr: 10.0.0.0/16}]", pool + "encapsulation: IPIP needs BGP, and spec.calicoNetwork.bgp is Disabled: write VXLAN"},
		{"bgp: Disabled\nipPools: [{cidr: 10.0.0.0/16, encapsulation: None}]", pool + "encapsulation: None needs BGP"},
		{"ipPools: [{cidr: 10.0.0.0/16}, {cidr: 10.0.1.0/24}]", "spec.calicoNetwork.ipPools[1].cidr: 10.0.1.0/24 overlaps 10.0.0.0/16"},
		{"ipPools: [{name: a, cidr: 10.0.0.0/16}, {name: a, cidr: 10.1.0.0/24}]", "spec.calicoNetwork.ipPools[1].name"},
		{"ipPools: [" + strings.TrimSuffix(strings.Repeat("{},", 26), ",") + "]", "spec.calicoNetwork.ipPools: 26 pools are too many"},
		{"ipPools: []", "write firstFound: true"},
		{"nodeAddressAutodetectionV4: {}", "spec.calicoNetwork.nodeAddressAutodetectionV4: none is given: write exactly one of"},
		{"nodeAddressAutodetectionV4: {firstFound: false}", "none is given"},
		{"nodeAddressAutodetectionV4: {firstFound: true, canReach: 192.0.2.1}", "firstFound and canReach are given"},
		{"nodeAddressAutodetectionV4: {kubernetes: NodeExternalIP}", "nodeAddressAutodetectionV4.kubernetes"},
		{"nodeAddressAutodetectionV4: {interface: 'eth('}", "nodeAddressAutodetectionV4.interface: \"eth(\" is not a regular expression"},
		{"nodeAddressAutodetectionV6: {cidrs: [10.0.0.0/8]}", "nodeAddressAutodetectionV6.cidrs: no range is IPv6"},
	} {
		_, err := install.Read(manifest(tc.spec))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.spec, err, tc.want)
		}
	}
	_, err := install.Read(manifest("bgp: Off\nmtu: 1\nipPools: [{cidr: x}]"))
	if err == nil || len(strings.Split(err.Error(), "\n")) != 3 {
		t.Errorf("not every mistake is told: %v", err)
	}
	one := manifest("bgp: Enabled")
	for text, want := range map[string]string{
		"": "there is no document", "kind: Installation": "there is no document", "a: [": "read YAML",
		string(one) + "\n---\n" + string(one): "there are two documents",
	} {
		if _, err := install.Read([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, name := range files {
		if text, err := os.ReadFile(name); err == nil {
			f.Add(text)
		}
	}
	f.Add(manifest("ipPools: [{cidr: &a 10.0.0.0/16, name: *a}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := install.Read(text)
		if err != nil {
			return
		}
		got, err := in.Render(install.DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		consume(t, got, in)
	})
}
