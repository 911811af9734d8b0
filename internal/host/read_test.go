package host

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
)

func startInMemory(t *testing.T) (*network, []*node) {
	return startThree(t, func(int) (vfs.FS, string) { return vfs.NewMem(), "/log" })
}

// TestReadIndexCoversWhatWasAnswered reads at all members while a proposer goes on: an
// index must cover each value that was answered before the question.
func TestReadIndexCoversWhatWasAnswered(t *testing.T) {
	_, nodes := startInMemory(t)
	lead := waitLeader(t, nodes...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 50 {
		told := make(chan paxos.Instance, 1)
		if err := lead.group.Propose([]byte("v"), func(i paxos.Instance, err error) {
			if err != nil {
				t.Errorf("a value was lost: %v", err)
			}
			told <- i
		}); err != nil {
			t.Fatal(err)
		}
		floor := <-told
		var wg sync.WaitGroup
		for _, n := range nodes {
			for range 3 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					i, err := n.group.ReadIndex(ctx)
					if err != nil {
						t.Errorf("read index: %v", err)
						return
					}
					if i < floor {
						t.Errorf("read index %d, but %d was answered before", i, floor)
					}
					if err := n.group.WaitChosen(ctx, i); err != nil {
						t.Errorf("wait for %d: %v", i, err)
					}
				}()
			}
		}
		wg.Wait()
	}
}

// TestReadIndexWaitsForALeader cuts the leader off: nobody gets an index from it once
// its lease is over, others get theirs from its successor.
func TestReadIndexWaitsForALeader(t *testing.T) {
	net, nodes := startInMemory(t)
	lead := waitLeader(t, nodes...)
	net.mu.Lock()
	for id, h := range net.hosts {
		if h == lead.host {
			net.cut[id] = true
		}
	}
	net.mu.Unlock()
	var others []*node
	for _, n := range nodes {
		if n != lead {
			others = append(others, n)
		}
	}
	next := waitLeader(t, others...)
	if i, err := next.group.ReadIndex(t.Context()); err != nil || i == 0 {
		t.Fatalf("read index of the new leader: %d, %v", i, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if i, err := lead.group.ReadIndex(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("read index of the cut leader: %d, %v", i, err)
	}
}
