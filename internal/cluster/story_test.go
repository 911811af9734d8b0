package cluster

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestStories plays the text stories in testdata. Commands:
//
//	set KEY[=VALUE]...   change the view, then decide
//	peer                 one line for each peer, then decide
//	done                 the slow action under way succeeds, then decide
//	fail REASON          it fails, then decide
//
// The answer lists the actions until nothing more is decided, fast ones taking
// effect at once, and the names of the problems reported last.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		m := &model{v: View{Self: 1}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if err := m.command(d); err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			out, err := m.settle()
			if err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			return out
		})
	})
}

func (m *model) command(d *datadriven.TestData) error {
	switch d.Cmd {
	case "set":
		for _, a := range d.CmdArgs {
			if err := m.set(a.Key, a.Vals); err != nil {
				return err
			}
		}
	case "peer":
		for line := range strings.Lines(d.Input) {
			m.peer(strings.TrimSpace(line))
		}
	case "done":
		m.done()
	case "fail":
		m.fail(d.CmdArgs[0].Key)
	default:
		return fmt.Errorf("unknown command %q", d.Cmd)
	}
	return nil
}

// settle decides and applies until nothing but reports is decided.
func (m *model) settle() (string, error) {
	var b strings.Builder
	for range 20 {
		acts := Decide(m.v)
		if err := Check(m.v, acts); err != nil {
			return b.String(), err
		}
		var problems []string
		moved := false
		for _, a := range acts {
			if r, ok := a.(Report); ok {
				problems = append(problems, r.Problem.Name)
				continue
			}
			moved = true
			fmt.Fprintln(&b, a)
			m.apply(a)
		}
		if !moved {
			if len(problems) > 0 {
				fmt.Fprintln(&b, "problems:", strings.Join(problems, " "))
			}
			if b.Len() == 0 {
				return "nothing\n", nil
			}
			return b.String(), nil
		}
	}
	return b.String(), fmt.Errorf("decisions do not settle:\n%s", b.String())
}
