// Package arch holds the tests that keep docs/architecture.md true: which
// package may import which.
package arch

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/phxsql/phxsql/"

type pkg struct {
	ImportPath string
	Imports    []string
}

// packages lists the module's packages with what they import directly.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	all := map[string][]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatalf("read list of packages: %v", err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
	}
	return all
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
	{"the simulator must own every goroutine and clock", []string{"internal/replica"}, []string{"sync", "sync/", "context", "os", "net", "net/", "time", "internal/"}, nil},
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
			imports, ok := all[who]
			if !ok {
				t.Errorf("package %s is in the rules but not in the module", who)
			}
			for _, imp := range imports {
				if imp = strings.TrimPrefix(imp, module); r.breaks(imp) {
					t.Errorf("%s imports %s: %s", who, imp, r.why)
				}
			}
		}
	}
}

// TestRulesCanFail shows that a rule notices what it forbids.
func TestRulesCanFail(t *testing.T) {
	if !rules[1].breaks("net/http") || !rules[1].breaks("os") || rules[1].breaks("slices") {
		t.Fatal("the rule of the core does not tell I/O from computing")
	}
}
