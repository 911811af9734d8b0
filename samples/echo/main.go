// Command echo replicates lines: what is typed is agreed on by three nodes, and every
// node prints what it applies, in the same order.
//
//	go run ./samples/echo               three nodes in this process
//	go run ./samples/echo -node 1       node 1 only; start 2 and 3 in other terminals
//
// A line typed at a node that does not lead is refused, and the leader is named.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/paxos/node"
	"github.com/phxsql/phxsql/samples/internal/run"
)

// echo prints what it applies. It keeps nothing: after a restart the whole log is
// printed again.
type echo struct {
	id  paxos.NodeID
	out io.Writer
}

func (*echo) Applied() paxos.Instance { return 0 }

func (e *echo) Apply(i paxos.Instance, value []byte) any {
	fmt.Fprintf(e.out, "node %d, instance %d: %s\n", e.id, i, value)
	return string(value)
}

// shared lets several nodes write to one output, line by line.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

func main() {
	var f run.Flags
	f.Register(flag.CommandLine)
	flag.Parse()
	ctx, stop := run.Interrupt()
	defer stop()
	if err := echoLines(ctx, f, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// echoLines replicates the lines of in until it ends.
func echoLines(ctx context.Context, f run.Flags, in io.Reader, w io.Writer) error {
	out := &shared{w: w}
	c, err := run.Start(f, "echo", func(id paxos.NodeID, _ string) (node.Group, error) {
		return node.Group{Machine: &echo{id, out}}, nil
	})
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintln(out, "type lines; end with Ctrl-D")
	lines := make(chan string)
	go func() { // ends with the input, or with the process
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			i, result, err := c.Propose(ctx, []byte(line))
			if err != nil {
				fmt.Fprintln(out, "refused:", err)
				continue
			}
			fmt.Fprintf(out, "agreed on %q as instance %d\n", result, i)
		case err := <-c.Failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}
