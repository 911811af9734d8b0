package main

import (
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"time"
)

// seat is the place of one node process in its cluster.
type seat struct {
	index  int // 0 leads
	port   int // of node i and group g: port + i + 3*g where a system needs one for each group
	groups int
	dir    string
}

func (s seat) addr(node, group int) string {
	return "127.0.0.1:" + strconv.Itoa(s.port+node+nodes*group)
}

const (
	nodes = 3
	// electionLimit is the time in which node 0 must lead all groups.
	electionLimit = 20 * time.Second
	// proposeLimit is the time in which a value must be committed.
	proposeLimit = 10 * time.Second
)

// system starts one node of a library. On node 0 it returns once that leads all
// groups, with the function that proposes; on the others with nil.
type system func(s seat) (propose, error)

var systems = map[string]system{
	"ours":       startOurs,
	"ours-tls":   startOursTLS,
	"etcd-raft":  startEtcd,
	"hashi-raft": startHashi,
	"dragonboat": startDragonboat,
}

// nodeMain is the main function of a node process:
// node SYSTEM INDEX PORT GROUPS DIR.
func nodeMain(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("start node: %d arguments, want 5", len(args))
	}
	start := systems[args[0]]
	if start == nil {
		return fmt.Errorf("start node: unknown system %q", args[0])
	}
	s := seat{dir: args[4]}
	for i, to := range []*int{&s.index, &s.port, &s.groups} {
		n, err := strconv.Atoi(args[i+1])
		if err != nil {
			return fmt.Errorf("start node: %w", err)
		}
		*to = n
	}
	do, err := start(s)
	if err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	return serve(os.Stdin, os.Stdout, s.groups, do)
}

// poll waits until ok, for a start of a cluster only.
func poll(limit time.Duration, what string, ok func() bool) error {
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s not within %v", what, limit)
		}
	}
	return nil
}

// profile starts a CPU profile if a file is named; a heap profile comes beside it.
func profile(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("start profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
		if f, err := os.Create(name + ".heap"); err == nil {
			_ = pprof.WriteHeapProfile(f) // the CPU profile is there all the same
			f.Close()
		}
	}, nil
}
