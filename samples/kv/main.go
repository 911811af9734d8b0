// Command kv is a replicated key-value store over HTTP, with snapshots: every node
// writes its state to a file now and then, and the log before is trimmed. A node that was
// away for so long that its part of the log is gone fetches the file of another.
//
//	go run ./samples/kv -dir /tmp/kv         three nodes in this process
//	go run ./samples/kv -dir /tmp/kv -node 1 node 1 only; start 2 and 3 in other terminals
//
//	curl -L -X PUT --data hello 127.0.0.1:7501/greeting
//	curl -L 127.0.0.1:7502/greeting
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/paxos/node"
	"github.com/phxsql/phxsql/samples/internal/run"
)

// options are the flags of this sample.
type options struct {
	run.Flags
	http  string
	every uint64
	keep  uint64
}

func main() {
	var o options
	o.Register(flag.CommandLine)
	flag.StringVar(&o.http, "http", "127.0.0.1:7501,127.0.0.1:7502,127.0.0.1:7503", "addresses of the nodes for clients")
	flag.Uint64Var(&o.every, "snapshot", 1000, "changes between two snapshots")
	flag.Uint64Var(&o.keep, "keep", 100_000, "changes that the log keeps for a node that is away; 0 for all")
	flag.Parse()
	ctx, stop := run.Interrupt()
	defer stop()
	if err := serve(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "kv:", err)
		os.Exit(1)
	}
}

// serve runs the nodes and their HTTP servers until the context ends.
func serve(ctx context.Context, o options) error {
	addrs := map[paxos.NodeID]string{}
	for i, a := range strings.Split(o.http, ",") {
		addrs[paxos.NodeID(i+1)] = a
	}
	stores := map[paxos.NodeID]*store{}
	c, err := run.Start(o.Flags, "kv", func(id paxos.NodeID, dir string) (node.Group, error) {
		s, err := openStore(dir, "http://"+addrs[id]+"/?snapshot")
		stores[id] = s
		return node.Group{Machine: s, CheckpointEvery: o.every, Retain: o.keep}, err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(c.Nodes))
	for id, n := range c.Nodes {
		ln, err := net.Listen("tcp", addrs[id])
		if err != nil {
			return fmt.Errorf("listen for clients: %w", err)
		}
		h := &http.Server{Handler: &server{n, stores[id], addrs}, ReadHeaderTimeout: requestLimit}
		wg.Go(func() { ended <- h.Serve(ln) })
		wg.Go(func() { <-ctx.Done(); h.Close() })
		fmt.Printf("node %d serves http://%s\n", id, addrs[id])
	}
	select {
	case err := <-ended:
		if !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	case err := <-c.Failed:
		return err
	case <-ctx.Done():
	}
	return nil
}
