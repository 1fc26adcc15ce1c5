package walls

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// Package is what `go list -json` says of one package, as far as the walls need it.
type Package struct {
	ImportPath   string
	Name         string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// List runs `go list` on the patterns in dir, for linux, where every file of the house is built.
func List(dir string, patterns ...string) ([]Package, error) {
	fields := "-json=ImportPath,Name,Dir,GoFiles,Imports,TestImports,XTestImports,Deps"
	cmd := exec.Command("go", append([]string{"list", "-e", fields}, patterns...)...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", strings.Join(patterns, " "), err)
	}
	var pkgs []Package
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p Package
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return pkgs, nil
		case err != nil:
			return nil, fmt.Errorf("read go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// Check returns every breach of the walls, sorted. Production packages must have a room and a doc.go.
func Check(pkgs []Package) []string {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	for _, p := range pkgs {
		from, ok := local(p.ImportPath)
		if !ok {
			continue
		}
		checkRoom(p, from, say)
		checkStrangers(p, from, say)
		checkDoors(p, from, say)
		if len(p.GoFiles) > 0 && p.Name != "main" && !slices.Contains(p.GoFiles, "doc.go") {
			say("%s has no doc.go", from)
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

func checkRoom(p Package, from string, say func(string, ...any)) {
	room := roomOf(from)
	if room == nil {
		say("%s is in no room of test/walls/rooms.go", from)
		return
	}
	for _, imp := range p.Imports {
		to, ok := local(imp)
		if !ok || matches(room.Path, to) || slices.ContainsFunc(room.May, func(m string) bool { return matches(m, to) }) {
			continue
		}
		say("%s imports %s; its room may import only %v", from, to, room.May)
	}
}

func checkStrangers(p Package, from string, say func(string, ...any)) {
	strangers := Strangers()
	mine := slices.IndexFunc(strangers, func(s string) bool { return within(s, from) })
	if mine < 0 {
		return
	}
	for _, imp := range slices.Concat(p.Deps, p.TestImports, p.XTestImports) {
		to, ok := local(imp)
		if !ok {
			continue
		}
		for i, s := range strangers {
			if i != mine && within(s, to) {
				say("%s reaches %s; %v never meet", from, to, strangers)
			}
		}
	}
}

func checkDoors(p Package, from string, say func(string, ...any)) {
	for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
		for lib, rooms := range Doors() {
			if within(lib, imp) && !slices.ContainsFunc(rooms, func(room string) bool { return within(room, from) }) {
				say("%s imports %s; only %s may", from, imp, strings.Join(rooms, " and "))
			}
		}
	}
}

// local strips the module from an import path; false for packages of others.
func local(path string) (string, bool) { return strings.CutPrefix(path, Module+"/") }

// within reports whether path is root or lies below it.
func within(root, path string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// matches reports whether a path of the form "a/b" or "a/..." takes in a package.
func matches(pattern, path string) bool {
	if root, ok := strings.CutSuffix(pattern, "..."); ok {
		return root == "" || within(strings.TrimSuffix(root, "/"), path)
	}
	return pattern == path
}

// roomOf returns the room with the longest Path that takes the package in, or nil.
func roomOf(path string) *Room {
	var best *Room
	for _, r := range Rooms() {
		if matches(r.Path, path) && (best == nil || len(strings.TrimSuffix(r.Path, "...")) > len(strings.TrimSuffix(best.Path, "..."))) {
			best = &r
		}
	}
	return best
}
