package relay

import (
	"errors"
	"testing"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// retained is a journal with checkpoints after each of some large transactions.
func retained(t *testing.T, txns int) (*memLog, *Journal) {
	l := newMemLog(t)
	l.mu.Lock()
	l.append(paxos.Entry{Kind: paxos.Membership, Data: []byte(`{"cluster":"c"}`)})
	l.mu.Unlock()
	l.add(&entry.Value{Kind: entry.Epoch, Epoch: 1, Node: 1, ServerUUID: gtid.UUID{1}})
	for n := range txns {
		events := make([]byte, checkpointBytes)
		l.add(&entry.Value{Kind: entry.Transactions, Epoch: 1, Node: 1, Events: events,
			Txns: []entry.Txn{{GTID: gtid.GTID{Source: gtid.Source{UUID: gtid.UUID{1}}, GNO: int64(n + 1)}, Size: uint64(len(events))}}})
	}
	j := NewJournal(l, Base{}, quiet())
	if err := j.WaitThrough(t.Context(), l.Chosen()); err != nil {
		t.Fatal(err)
	}
	return l, j
}

func upTo(n int64) *gtid.Set {
	s := &gtid.Set{}
	s.AddInterval(gtid.Source{UUID: gtid.UUID{1}}, gtid.Interval{First: 1, Last: n})
	return s
}

func TestHeldIsWhatAServerDoesWithout(t *testing.T) {
	_, j := retained(t, 5)
	for n, want := range map[int64]paxos.Instance{1: 3, 3: 5, 5: 7, 9: 7} {
		if got := j.Held(upTo(n)); got != want {
			t.Errorf("with %d transactions instance %d is held, want %d", n, got, want)
		}
	}
	if got := j.Held(&gtid.Set{}); got != 0 {
		t.Errorf("an empty server holds instance %d", got)
	}
}

func TestDistanceIsWhatIsLeftToExecute(t *testing.T) {
	l, j := retained(t, 5)
	all, passed, err := j.Distance(&gtid.Set{})
	if err != nil || all < 5*checkpointBytes || passed != 0 {
		t.Errorf("an empty server has %d bytes before it and %d behind, %v", all, passed, err)
	}
	for n, want := range map[int64]uint64{1: 4, 3: 2, 5: 0} {
		got, passed, err := j.Distance(upTo(n))
		if err != nil || got < want*checkpointBytes || got > (want+1)*checkpointBytes || got+passed != all {
			t.Errorf("with %d transactions %d bytes of %d are left and %d passed, %v, want about %d", n, got, all, passed, err, want*checkpointBytes)
		}
	}
	l.trim(5)
	var trimmed *TrimmedError
	if _, _, err := j.Distance(&gtid.Set{}); !errors.As(err, &trimmed) {
		t.Errorf("the log is trimmed, and an empty server gets %v", err)
	}
}

func TestCutKeepsWhatItMust(t *testing.T) {
	_, j := retained(t, 5)
	if b, ok := j.Cut(6, 2*checkpointBytes); !ok || b.Next != 6 || !b.Executed.Equal(upTo(3)) || b.Epoch.Number != 1 || string(b.Members) != `{"cluster":"c"}` {
		t.Errorf("two transactions kept: %+v, %v", b, ok)
	}
	if b, ok := j.Cut(4, 0); !ok || b.Next != 5 {
		t.Errorf("held through 4: %+v, %v", b, ok)
	}
	if b, ok := j.Cut(7, 10*checkpointBytes); ok {
		t.Errorf("more kept than there is: %+v", b)
	}
}

// A journal that begins at a cut, on a log that is trimmed there, knows the same as
// one that has followed everything, and sends replicas on the same way.
func TestJournalBeginsAtACut(t *testing.T) {
	l, whole := retained(t, 5)
	base, ok := whole.Cut(5, 0)
	if !ok {
		t.Fatal("no cut")
	}
	l.mu.Lock()
	l.first = base.Next
	l.mu.Unlock()
	whole.Forget(base.Next)
	late := NewJournal(l, Base{}, quiet())
	if err := late.Rebase(base, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	for name, j := range map[string]*Journal{"whole": whole, "begun": NewJournal(l, base, quiet()), "rebased": late} {
		if err := j.WaitThrough(t.Context(), l.Chosen()); err != nil {
			t.Fatal(name, err)
		}
		if !j.Executed().Equal(upTo(5)) || j.Epoch().Number != 1 || j.Through() != 7 {
			t.Errorf("%s: %v through %d", name, j.Executed(), j.Through())
		}
		if b, err := j.Locate(upTo(3)); err != nil || b.Next != 6 {
			t.Errorf("%s: a server with 3 transactions begins at %d, %v", name, b.Next, err)
		}
		var trimmed *TrimmedError
		if _, err := j.Locate(upTo(2)); !errors.As(err, &trimmed) || trimmed.Missing.Count() != 1 {
			t.Errorf("%s: a server with 2 transactions: %v", name, err)
		}
	}
}
