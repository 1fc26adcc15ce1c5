package deploy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// image is one image as OCI's layout describes it (image-spec: image-layout.md, manifest.md, config.md), as far as it is looked at.
type image struct {
	Architecture, OS string
	Config           struct {
		User                  string
		Env, Entrypoint, Cmd  []string
		Labels                map[string]string
		ExposedPorts, Volumes map[string]any
	}
	files map[string][]byte // by path
	modes map[string]os.FileMode
	size  int64 // of all layers, as they are stored, bytes
}

// readImage reads the layout in a directory, which must hold one image.
func readImage(t *testing.T, dir string) *image {
	t.Helper()
	type descriptor struct {
		Digest string
		Size   int64
	}
	read := func(name string, into any) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && into != nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	blob := func(d descriptor, into any) []byte {
		return read("blobs/"+strings.Replace(d.Digest, ":", "/", 1), into)
	}
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	img := &image{files: map[string][]byte{}, modes: map[string]os.FileMode{}}
	read("index.json", &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("there are %d images, want 1", len(index.Manifests))
	}
	blob(index.Manifests[0], &manifest)
	blob(manifest.Config, img)
	for _, layer := range manifest.Layers {
		img.size += layer.Size
		img.unpack(t, blob(layer, nil))
	}
	return img
}

// unpack reads a layer, a tar file that may be compressed by gzip.
func (img *image) unpack(t *testing.T, layer []byte) {
	t.Helper()
	var plain io.Reader = bytes.NewReader(layer)
	if bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) { // RFC 1952, 2.3.1
		var err error
		if plain, err = gzip.NewReader(plain); err != nil {
			t.Fatal(err)
		}
	}
	for in := tar.NewReader(plain); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		name := "/" + strings.Trim(h.Name, "/")
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", name, h.Uid, h.Gid)
		}
		if name == "/" {
			continue
		}
		img.files[name], img.modes[name] = text, h.FileInfo().Mode()
	}
}

// static reports a program that needs another file to run.
func static(t *testing.T, name string, program []byte, machine elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if f.Machine != machine {
		t.Errorf("%s is for %v, want %v", name, f.Machine, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is linked dynamically", name)
		}
	}
}
