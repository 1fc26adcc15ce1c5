package walls

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
)

// The sizes the house style aims at, in lines.
const (
	aimFile     = 400
	aimFunction = 45
	slack       = 1.5 // reported from this many times the aim
)

// Oversized returns a line for each production file and function well above the aims. It is a report, not a wall.
func Oversized(pkgs []Package) ([]string, error) {
	var out []string
	for _, p := range pkgs {
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", name, err)
			}
			if ast.IsGenerated(f) {
				continue
			}
			line := func(pos token.Pos) int { return fset.Position(pos).Line }
			if n := line(f.FileEnd); float64(n) > slack*aimFile {
				out = append(out, fmt.Sprintf("%s/%s has %d lines (aim: %d)", p.ImportPath, name, n, aimFile))
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := line(fn.End()) - line(fn.Pos()) + 1; float64(n) > slack*aimFunction {
					out = append(out, fmt.Sprintf("%s/%s: %s has %d lines (aim: %d)", p.ImportPath, name, fn.Name.Name, n, aimFunction))
				}
			}
		}
	}
	return out, nil
}
