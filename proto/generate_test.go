package proto

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/test/need"
)

// check runs generate.sh -check in a copy of this directory, changed by change.
func check(t *testing.T, change func(dir string)) (string, error) {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "proto"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	change(filepath.Join(root, "proto"))
	out, err := exec.Command("sh", filepath.Join(root, "proto", "generate.sh"), "-check").CombinedOutput()
	return string(out), err
}

// rewrite replaces the one occurrence of old in a file.
func rewrite(t *testing.T, path, old, new string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), old); n != 1 {
		t.Fatalf("%s: %q occurs %d times, want 1", path, old, n)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGenerated holds the generated code to the .proto files.
func TestGenerated(t *testing.T) {
	need.Tool(t, "protoc", "protobuf-compiler")
	if out, err := check(t, func(string) {}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestCheckFails proves that the check sees every kind of drift.
func TestCheckFails(t *testing.T) {
	need.Tool(t, "protoc", "protobuf-compiler")
	for name, change := range map[string]func(t *testing.T, dir string){
		"field added to the .proto": func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, "caracal/v1/caracal.proto"), "message ResyncRequest {", "message ResyncRequest {\n  bool dry_run = 6;")
		},
		"generated code edited": func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, "caracal/v1/caracal_grpc.pb.go"), "package caracalv1\n", "package caracalv1\n\n// edited\n")
		},
		"generated code missing": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "caracal/v1/caracal.pb.go")); err != nil {
				t.Fatal(err)
			}
		},
		"generated code of a .proto that is gone": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "caracal/v1/old.pb.go"), []byte("package caracalv1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := check(t, func(dir string) { change(t, dir) })
			if err == nil {
				t.Fatalf("the check passes\n%s", out)
			}
			if !strings.Contains(out, "run proto/generate.sh") {
				t.Fatalf("failed for another reason, or without the remedy: %v\n%s", err, out)
			}
		})
	}
}
