package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/inspect/cli"
)

func TestInstallRender(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	const head = "apiVersion: operator.tigera.io/v1\nkind: Installation\nspec:\n  calicoNetwork:\n    bgp: "
	for name, text := range map[string]string{good: head + "Enabled\n", bad: head + "Maybe\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args     []string
		code     int
		out, err string
	}{
		{[]string{"-f", good}, 0, "calico_backend: bird", ""},
		{[]string{"-f", good, "--namespace", "calico-system"}, 0, "namespace: calico-system", ""},
		{[]string{"-f", bad}, 1, "", "spec.calicoNetwork.bgp: \"Maybe\" is not known"},
		{[]string{"-f", filepath.Join(dir, "none")}, 1, "", "no such file"},
		{nil, 2, "", "-f is missing"},
		{[]string{"-f", good, "more"}, 2, "", "too many arguments"},
	} {
		var out, errs bytes.Buffer
		code := cli.Run(context.Background(), append([]string{"install", "render"}, tc.args...),
			cli.Environment{Out: &out, Err: &errs, Getenv: func(string) string { return "" }, Now: time.Now})
		if code != tc.code || !strings.Contains(out.String(), tc.out) || !strings.Contains(errs.String(), tc.err) || tc.out == "" && out.Len() > 0 {
			t.Errorf("%v: code %d\n%s\n%s", tc.args, code, out.String(), errs.String())
		}
	}
}
