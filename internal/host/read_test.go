package host

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

func inMemory(int) (vfs.FS, string) { return vfs.NewMem(), "/log" }

func startInMemory(t *testing.T) (*network, []*node) { return startThree(t, inMemory) }

// TestReadIndexCoversWhatWasAnswered reads at all members while a proposer goes on: an
// index must cover each value that was answered before the question.
func TestReadIndexCoversWhatWasAnswered(t *testing.T) {
	_, nodes := startInMemory(t)
	lead := waitLeader(t, nodes...)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
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
	net, nodes := startOn(t, newNetwork(brief), inMemory)
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

// grantAll answers what a leader to be asks, as member 2, until stop is set.
func grantAll(h *Host, out sent, stop *atomic.Bool) {
	for m := range out {
		if m.To != 2 || stop.Load() {
			continue
		}
		a := paxos.Message{From: 2, To: m.From, Ballot: m.Ballot, First: m.First, Sent: m.Sent}
		switch m.Kind {
		case paxos.MsgCanvass:
			a.Kind = paxos.MsgOpinion
		case paxos.MsgPrepare:
			a.Kind = paxos.MsgPromise
		case paxos.MsgAccept:
			a.Kind = paxos.MsgAccepted
			a.First += paxos.Instance(len(m.Entries))
			a.Received, a.Through = a.First-1, a.First-1
		default:
			continue
		}
		h.HandleMessages(2, 0, []paxos.Message{a})
	}
}

// TestReadsAreDatedAfterTheyCame: the lease ends right after a turn has read its clock,
// and somebody asks to read. The turn must not answer by the lease that is over.
func TestReadsAreDatedAfterTheyCame(t *testing.T) {
	l, err := wal.Open(wal.Options{FS: vfs.NewMem(), Dir: "/log", Inline: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := bootstrap(l, 1, threeMembers(3)); err != nil {
		t.Fatal(err)
	}
	var now atomic.Int64
	now.Store(int64(time.Hour))
	var once atomic.Pointer[func()]
	plain := func() paxos.Time { return paxos.Time(now.Load()) }
	clock := func() paxos.Time { // of turns
		at := paxos.Time(now.Load())
		if f := once.Swap(nil); f != nil {
			(*f)()
		}
		return at
	}
	out := make(sent, 1000)
	h := New(Options{Log: l, Sender: out, Logger: slog.New(slog.DiscardHandler), Clock: clock, tickClock: plain})
	g, err := h.Start(0, paxos.Defaults(1, func(int64) int64 { return 0 }))
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { grantAll(h, out, &stop) })
	defer func() { h.Close(); close(out); wg.Wait() }()
	g.SetCandidacy(true, 0)
	// The clock goes on until the member leads and answers by its lease: a tick that came before
	// it was able to lead has put its campaign off, and a lease may have ended meanwhile.
	answer := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		_, err := g.ReadIndex(ctx)
		answer <- err
	}()
	for first := true; first; {
		select {
		case err := <-answer:
			if err != nil {
				t.Fatalf("no leader: %+v, %v", g.Leader(), err)
			}
			first = false
		case <-time.After(time.Millisecond):
			now.Add(int64(10 * time.Millisecond))
		}
	}
	stop.Store(true)

	ctx, cancel := context.WithCancel(t.Context())
	late := func() {
		now.Add(int64(time.Minute))
		go func() {
			_, err := g.ReadIndex(ctx)
			answer <- err
		}()
		for waiting := 0; waiting == 0; runtime.Gosched() {
			g.reads.mu.Lock()
			waiting = len(g.reads.waiting)
			g.reads.mu.Unlock()
		}
	}
	once.Store(&late)
	for once.Load() != nil { // until a turn has read the clock
		g.poke()
	}
	if _, err := g.Status(ctx); err != nil { // and one after it has ended
		t.Fatal(err)
	}
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Fatalf("a leader answers a read after its lease: %v", err)
	}
}
