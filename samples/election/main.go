// Command election uses the group for nothing but its leader: at most one node is
// master at any time, which is known by asking for its lease.
//
//	go run ./samples/election            three nodes in this process; the master hands over now and then
//	go run ./samples/election -node 1    node 1 only; start 2 and 3 in other terminals, and kill the master
//
// What a program does as master it does only while LeaseValid says true, and within
// LeaseRemaining.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/paxos/node"
	"github.com/phxsql/phxsql/samples/internal/run"
)

func main() {
	var f run.Flags
	f.Register(flag.CommandLine)
	every := flag.Duration("hand-over", 3*time.Second, "with all nodes in this process: time after which the master hands over; 0 for never")
	flag.Parse()
	ctx, stop := run.Interrupt()
	defer stop()
	if err := elect(ctx, f, *every, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "election:", err)
		os.Exit(1)
	}
}

// elect reports who is master until the context ends.
func elect(ctx context.Context, f run.Flags, every time.Duration, out io.Writer) error {
	c, err := run.Start(f, "election", func(paxos.NodeID, string) (node.Group, error) { return node.Group{}, nil })
	if err != nil {
		return err
	}
	defer c.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make(chan string)
	for id, n := range c.Nodes {
		wg.Go(func() { watch(ctx, id, n, said) })
	}
	handOver := make(<-chan time.Time)
	if f.Node == 0 && every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		handOver = t.C
	}
	for {
		select {
		case s := <-said:
			fmt.Fprintln(out, s)
		case <-handOver:
			for _, n := range c.Nodes {
				if n.LeaseValid(run.Group) {
					_ = n.Transfer(run.Group, 0) // it may have stopped leading just now
				}
			}
		case err := <-c.Failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// watch says when a node becomes master and when it stops being one. The lease may
// run out without any other event, so it is looked at in time.
func watch(ctx context.Context, id paxos.NodeID, n *node.Node, said chan<- string) {
	master := false
	for {
		changed := n.Changed(run.Group)
		if now := n.LeaseValid(run.Group); now != master {
			master = now
			s := fmt.Sprintf("node %d is no longer master", id)
			if now {
				s = fmt.Sprintf("node %d is master, for %v without news", id, n.LeaseRemaining(run.Group).Round(time.Millisecond))
			}
			select {
			case said <- s:
			case <-ctx.Done():
				return
			}
		}
		look := time.NewTimer(max(10*time.Millisecond, n.LeaseRemaining(run.Group)))
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}
