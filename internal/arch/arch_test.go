// Package arch holds the tests that keep docs/architecture.md true: which
// package may import which.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/phxsql/phxsql/"

// pkg is what the files of a package refer to, those of tests left out.
type pkg struct {
	imports map[string]bool
	clock   map[string]bool // names of package time
}

// packages reads the module's packages. It reads the files itself, so that a change to
// any of them runs these tests again.
func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	const root = "../.."
	all := map[string]*pkg{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != root) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		p := all[filepath.ToSlash(dir)]
		if p == nil {
			p = &pkg{imports: map[string]bool{}, clock: map[string]bool{}}
			all[filepath.ToSlash(dir)] = p
		}
		p.read(f)
		return nil
	})
	if err != nil {
		t.Fatalf("read the module: %v", err)
	}
	return all
}

func (p *pkg) read(f *ast.File) {
	clock := ""
	for _, i := range f.Imports {
		imported, _ := strconv.Unquote(i.Path.Value)
		p.imports[imported] = true
		if imported == "time" {
			if clock = path.Base(imported); i.Name != nil {
				clock = i.Name.Name
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && clock != "" && x.Name == clock {
				p.clock[s.Sel.Name] = true
			}
		}
		return true
	})
}

// rule forbids imports to some packages.
type rule struct {
	why  string
	who  []string
	bans []string // import paths, or prefixes that end in "/"; those of the module without its path
	but  []string // exceptions
}

var rules = []rule{
	{"the public packages are for any program", []string{"paxos", "wal", "vfs"}, []string{"internal/", "github.com/go-mysql-org/", "github.com/go-sql-driver/"}, nil},
	{"the core has no I/O, no clock and no goroutines", []string{"paxos"}, []string{"os", "net", "net/", "sync", "sync/", "context", "log", "log/", "wal", "vfs"}, nil},
	{"protocol packages know no consensus", []string{"internal/binlog", "internal/semisync", "internal/gtid", "internal/entry"}, []string{"paxos", "wal", "internal/host", "internal/replica"}, nil},
	{"decisions have no I/O", []string{"internal/cluster"}, []string{"os", "os/", "net", "net/", "io", "io/", "sync", "sync/", "context", "log/", "internal/"}, nil},
	{"events are values", []string{"internal/events"}, []string{"os", "os/", "net", "net/", "io", "io/", "sync", "sync/", "context", "log/", "internal/"}, nil},
	{"the simulator must own every goroutine and clock", []string{"internal/replica"}, []string{"sync", "sync/", "context", "os", "net", "net/", "internal/"}, nil},
	{"relay and proxy declare what they need", []string{"internal/relay", "internal/proxy"}, []string{"internal/host", "internal/agent", "internal/cluster", "internal/mysqld", "internal/transport", "wal"}, nil},
}

func (r rule) breaks(imp string) bool {
	for _, x := range r.but {
		if imp == x {
			return false
		}
	}
	for _, b := range r.bans {
		if imp == b || strings.HasSuffix(b, "/") && strings.HasPrefix(imp, b) {
			return true
		}
	}
	return false
}

func TestImportDirections(t *testing.T) {
	all := packages(t)
	for _, r := range rules {
		for _, who := range r.who {
			p, ok := all[who]
			if !ok {
				t.Fatalf("package %s is in the rules but not in the module", who)
			}
			for imp := range p.imports {
				if imp = strings.TrimPrefix(imp, module); r.breaks(imp) {
					t.Errorf("%s imports %s: %s", who, imp, r.why)
				}
			}
		}
	}
}

// timeless are the packages that are told the time and never ask for it.
var timeless = []string{"paxos", "internal/replica", "internal/cluster"}

// TestClocks: durations are values, asking the clock is I/O.
func TestClocks(t *testing.T) {
	all := packages(t)
	for _, who := range timeless {
		for name := range all[who].clock {
			if !values[name] {
				t.Errorf("%s uses time.%s: it must be told the time", who, name)
			}
		}
	}
	if !all["internal/agent"].clock["Now"] {
		t.Error("the use of a clock is not noticed")
	}
}

// values are the names of package time that stand for values.
var values = map[string]bool{
	"Duration": true, "Nanosecond": true, "Microsecond": true, "Millisecond": true, "Second": true, "Minute": true, "Hour": true,
}

// TestRulesCanFail shows that a rule notices what it forbids.
func TestRulesCanFail(t *testing.T) {
	if !rules[1].breaks("net/http") || !rules[1].breaks("os") || rules[1].breaks("slices") {
		t.Fatal("the rule of the core does not tell I/O from computing")
	}
}
