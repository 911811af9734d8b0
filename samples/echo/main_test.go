package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/samples/internal/run"
	"github.com/phxsql/phxsql/samples/internal/runtest"
)

func TestAllNodesEchoEveryLine(t *testing.T) {
	in, typist := io.Pipe()
	out := &runtest.Output{}
	ended := make(chan error, 1)
	go func() {
		ended <- echoLines(t.Context(), run.Flags{Dir: t.TempDir(), Peers: strings.Join(runtest.Addrs(t, 3), ",")}, in, out)
	}()
	for _, line := range []string{"hello", "world"} {
		fmt.Fprintln(typist, line)
		out.Wait(t, fmt.Sprintf("agreed on %q", line))
	}
	for id := 1; id <= 3; id++ {
		runtest.Until(t, "echo in order", func() bool {
			_, after, ok := strings.Cut(out.String(), fmt.Sprintf("node %d, instance 3: hello", id))
			return ok && strings.Contains(after, fmt.Sprintf("node %d, instance 4: world", id))
		})
	}
	typist.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestNodesInProcessesOfTheirOwn(t *testing.T) {
	dir, peers := t.TempDir(), strings.Join(runtest.Addrs(t, 3), ",")
	var typists []io.Writer
	out := &runtest.Output{}
	for id := 1; id <= 3; id++ {
		in, typist := io.Pipe()
		typists = append(typists, typist)
		ended := make(chan error, 1)
		go func() { ended <- echoLines(t.Context(), run.Flags{Node: id, Dir: dir, Peers: peers}, in, out) }()
		t.Cleanup(func() {
			typist.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	for _, w := range typists { // one of them leads, the others name it
		fmt.Fprintln(w, "hello")
	}
	out.Wait(t, "agreed on", "leads, type it there", "node 1, instance", "node 2, instance", "node 3, instance")
}
