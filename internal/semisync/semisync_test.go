package semisync

import (
	"testing"

	"pgregory.net/rapid"
)

func TestPositionsAreOrdered(t *testing.T) {
	list := []Position{
		{}, {"binlog.000001", 4}, {"binlog.000001", 1 << 33}, {"binlog.000002", 4},
		{"binlog.000010", 4}, {"binlog.999999", 4}, {"binlog.1000000", 4},
	}
	for i := range list {
		for j := range list {
			if got := list[i].After(list[j]); got != (i > j) {
				t.Errorf("%v after %v: %v", list[i], list[j], got)
			}
		}
	}
}

func TestAckRoundTrip(t *testing.T) {
	want := Position{"binlog.000012", 1<<40 + 5}
	got, err := ParseAck(AppendAck(nil, want))
	if err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	for _, need := range []bool{true, false} {
		if got, err := ParseHeader(AppendHeader(nil, need)); err != nil || got != need {
			t.Errorf("header %v reads as %v, %v", need, got, err)
		}
	}
	if _, err := ParseHeader([]byte{0, 1}); err == nil {
		t.Error("a packet without the magic byte was taken")
	}
}

func at(n int) Position { return Position{"binlog.000001", uint64(n)} }

func expect(t *testing.T, tr *Tracker, want int) {
	t.Helper()
	got, ok := tr.Next()
	if ok != (want != 0) || ok && got != at(want) {
		t.Fatalf("next acknowledgement %v, %v; want %d", got, ok, want)
	}
}

func TestNewestChosenIsAcknowledgedOnce(t *testing.T) {
	var tr Tracker
	tr.Sent(at(10))
	tr.Propose(at(10))
	expect(t, &tr, 0)
	tr.Sent(at(20))
	tr.Propose(at(20))
	tr.Done()
	tr.Done()
	expect(t, &tr, 20)
	expect(t, &tr, 0)
	if !tr.Drained() {
		t.Error("not drained")
	}
}

func TestChunksAcknowledgeWithTheLastOne(t *testing.T) {
	var tr Tracker
	tr.Propose(Position{})
	tr.Propose(Position{})
	tr.Sent(at(30))
	tr.Propose(at(30))
	tr.Done()
	tr.Done()
	expect(t, &tr, 0)
	tr.Done()
	expect(t, &tr, 30)
}

// A transaction that came again is in the log, but one before it may not be.
func TestSkippedWaitsForWhatIsBeforeIt(t *testing.T) {
	var tr Tracker
	tr.Sent(at(10))
	tr.Skip(at(10))
	expect(t, &tr, 10)
	tr.Sent(at(20))
	tr.Propose(at(20))
	tr.Sent(at(30))
	tr.Skip(at(30))
	expect(t, &tr, 0)
	tr.Done()
	expect(t, &tr, 30)
}

func TestReconnectAcknowledgesAgain(t *testing.T) {
	var tr Tracker
	tr.Sent(at(10))
	tr.Propose(at(10))
	tr.Done()
	expect(t, &tr, 10)
	tr.Reconnected()
	if tr.Drained() {
		t.Error("drained before the answer is repeated")
	}
	tr.Sent(at(5)) // sent again from an older position
	tr.Skip(at(5))
	expect(t, &tr, 10)
}

func TestNeverBeyondWhatIsChosenInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tr Tracker
		var inFlight []int
		sent, chosen, acked := 0, 0, 0
		for range rapid.IntRange(0, 3000).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				sent++
				tr.Sent(at(sent))
				tr.Propose(at(sent))
				inFlight = append(inFlight, sent)
			case 2, 3:
				if len(inFlight) > 0 {
					tr.Done()
					chosen, inFlight = inFlight[0], inFlight[1:]
				}
			case 4:
				if p, ok := tr.Next(); ok {
					acked = int(p.Pos)
				}
			}
			if acked > chosen || tr.InFlight() != len(inFlight) {
				t.Fatalf("acknowledged %d, chosen %d, %d in flight", acked, chosen, tr.InFlight())
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(AppendAck(nil, at(7)))
	f.Add(AppendHeader(nil, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseHeader(b)
		if p, err := ParseAck(b); err == nil && string(AppendAck(nil, p)) != string(b) {
			t.Fatalf("%v is not what was read", p)
		}
	})
}
