package host

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

type sent chan paxos.Message

func (s sent) Send(_ paxos.NodeID, _ paxos.Group, msgs []paxos.Message) {
	for _, m := range msgs {
		s <- m
	}
}

func (s sent) wait(t *testing.T, match func(paxos.Message) bool) paxos.Message {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		select {
		case m := <-s:
			if match(m) {
				return m
			}
		case <-deadline:
			t.Fatal("the message does not come")
		}
	}
}

// TestMessagesAreDatedAfterTheyCame lets a heartbeat arrive, and ten seconds pass,
// right after the loop has read its clock. The lease that it grants must not date
// from before.
func TestMessagesAreDatedAfterTheyCame(t *testing.T) {
	l, err := wal.Open(wal.Options{FS: vfs.NewMem(), Dir: "/log", Inline: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := bootstrap(l, 2, threeMembers(3)); err != nil {
		t.Fatal(err)
	}
	var now atomic.Int64
	now.Store(int64(time.Hour))
	var mu sync.Mutex
	var once func()
	plain := func() paxos.Time { return paxos.Time(now.Load()) }
	clock := func() paxos.Time { // of turns
		at := paxos.Time(now.Load())
		mu.Lock()
		f := once
		once = nil
		mu.Unlock()
		if f != nil {
			f()
		}
		return at
	}
	out := make(sent, 1000)
	h := New(Options{Log: l, Sender: out, Logger: slog.New(slog.DiscardHandler), Clock: clock, tickClock: plain})
	defer h.Close()
	cfg := paxos.Defaults(2, func(int64) int64 { return 0 })
	if _, err := h.Start(0, cfg); err != nil {
		t.Fatal(err)
	}
	ballot := paxos.Ballot{Round: 5, Node: 1}
	accept := func(sentAt paxos.Time) []paxos.Message {
		return []paxos.Message{{Kind: paxos.MsgAccept, From: 1, To: 2, Ballot: ballot, First: 1, Sent: sentAt}}
	}
	h.HandleMessages(1, 0, accept(1))
	out.wait(t, func(m paxos.Message) bool { return m.Kind == paxos.MsgAccepted && m.Sent == 1 })

	mu.Lock()
	once = func() {
		h.HandleMessages(1, 0, accept(2))
		now.Add(int64(10 * time.Second))
	}
	mu.Unlock()
	out.wait(t, func(m paxos.Message) bool { return m.Kind == paxos.MsgAccepted && m.Sent == 2 })

	h.HandleMessages(3, 0, []paxos.Message{{Kind: paxos.MsgCanvass, From: 3, To: 2, Ballot: paxos.Ballot{Round: 9, Node: 3}, First: 1}})
	m := out.wait(t, func(m paxos.Message) bool { return m.Kind == paxos.MsgOpinion })
	if m.Reject != paxos.RejectLease {
		t.Fatalf("the follower lets another candidate in (%v) although it has just heard from the leader", m.Reject)
	}
}
