package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// flush is how a cluster's engines flush their own log.
type flush struct{ name, config string }

var flushes = []flush{
	{"relaxed", "strict_flush = false\n"}, // what follows [engine]
	{"strict", "strict_flush = true\n"},
}

// allCells are the cells of the matrix for one way of flushing; the long ones come last.
func allCells() []cell {
	var list []cell
	for _, fl := range flights {
		for _, role := range []string{asMaster, asFollower} {
			if role == asFollower && fl.name == manyGroups.name {
				continue // on a follower nothing is unconfirmed
			}
			for _, d := range deaths {
				list = append(list, cell{role, fl, d})
			}
		}
	}
	return list
}

// matrix keeps what became of each cell in a file.
type matrix struct {
	path string
	done map[string]outcome
}

func openMatrix(t *testing.T, path string) *matrix {
	t.Helper()
	m := &matrix{path: path, done: map[string]outcome{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	if err == nil {
		err = json.Unmarshal(b, &m.done)
	}
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return m
}

func (m *matrix) get(f flush, x cell) (outcome, bool) {
	o, ok := m.done[f.name+": "+x.String()]
	return o, ok
}

func (m *matrix) put(t *testing.T, f flush, x cell, o outcome) {
	t.Helper()
	m.done[f.name+": "+x.String()] = o
	b, err := json.MarshalIndent(m.done, "", " ")
	if err == nil {
		err = errors.Join(os.WriteFile(m.path+".new", b, 0o644), os.Rename(m.path+".new", m.path))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// left is how many cells are not done.
func (m *matrix) left(f flush) int {
	n := 0
	for _, x := range allCells() {
		if _, ok := m.get(f, x); !ok {
			n++
		}
	}
	return n
}

// page is docs/operating/rejoin.md.
func (m *matrix) page() string {
	var b strings.Builder
	b.WriteString(pageHead)
	fmt.Fprintf(&b, "%s\n", m.summary())
	for _, role := range []string{asMaster, asFollower} {
		fmt.Fprintf(&b, "\n## The %s dies\n\n%s\n\n| in flight |", role, roleText[role])
		for _, d := range deaths {
			b.WriteString(" " + d.name + " |")
		}
		b.WriteString("\n|" + strings.Repeat(" --- |", len(deaths)+1) + "\n")
		for _, fl := range flights {
			if row := m.row(role, fl); row != "" {
				fmt.Fprintf(&b, "| %s |%s\n", fl.name, row)
			}
		}
	}
	return b.String() + pageTail
}

func (m *matrix) row(role string, fl flight) string {
	row, any := "", false
	for _, d := range deaths {
		var times []string
		for _, f := range flushes {
			o, ok := m.get(f, cell{role, fl, d})
			text := "-"
			if ok {
				text, any = fmt.Sprintf("%.1f", o.Back), true
			}
			if o.Copied {
				text += " copy"
			}
			times = append(times, text)
		}
		row += " " + strings.Join(times, " / ") + " |"
	}
	if !any {
		return ""
	}
	return row
}

func (m *matrix) summary() string {
	var back []float64
	copies, low, high := 0, "", ""
	for _, o := range m.done {
		back = append(back, o.Back)
		if o.Copied {
			copies++
		}
		if low == "" || number(o.Load) < number(low) {
			low = o.Load
		}
		if high == "" || number(o.Load) > number(high) {
			high = o.Load
		}
	}
	slices.Sort(back)
	return fmt.Sprintf("%d cells: half of the nodes were well again within %.1f s, the slowest after %.1f s; %d took a copy. The machine had two cores for all nodes, a load of %s to %s, "+
		"and disks of a file system in user space.", len(back), back[len(back)/2], back[len(back)-1], copies, low, high)
}

func number(text string) float64 {
	f, _ := strconv.ParseFloat(text, 64) // 0 for what the system does not tell
	return f
}

// machineLoad is the machine's load over the last minute.
func machineLoad() string {
	b, _ := os.ReadFile("/proc/loadavg") // empty where there is none
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

var roleText = map[string]string{
	asMaster: "What is in flight is in its server only, waiting for a majority: the node was cut off a moment before. Writes of clients and the large transaction are on " +
		"their way to the others, too. When it is back it must hold nothing of what was never confirmed, and all of the rest.",
	asFollower: "The master and the other follower go on with what is in flight. When the node is back it must hold all of it.",
}

const pageHead = `# What happens when a node dies in the middle of something?

It comes back by itself: by what a machine's init system does, and no more. It needs no copy of the data: its server restarts at a consistent point of its own, without anything
that was never confirmed, and gets the rest from the log.

` + "`make rejoin-matrix`" + ` proves it and writes this page: each way in which a node can die, with each kind of thing in flight, as master and as follower, with engines that flush
relaxed and strict (` + "`engine.strict_flush`" + `). After each death all nodes must be well again, and hold the same: every row, definition, account, and prepared XA transaction. What nobody
else had must be gone, what a client was told must be there.

The times are seconds from the moment that the node is started (or continued, or reached by the others again) until every node is well and has executed all there is, relaxed / strict. 0.0 means
that there was nothing to catch up with, a dash that the cell was not run. When an agent is killed, the kernel kills its mysqld with it; a mysqld that is killed alone is started again by its agent.

`

const pageTail = `
## See it again

` + "```" + `sh
make rejoin-matrix    # all cells; half an hour; goes on where it was interrupted
go test ./test/e2e -run TestNodesRejoin -v    # three of them
` + "```" + `

Both need Linux, root and ` + "`/dev/fuse`" + `.
`
