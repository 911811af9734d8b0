package agent

import (
	"testing"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/paxos"
)

// What may go when the log is too large: the engines of a majority of all voters must
// hold it, and the own one and those that get a copy.
func TestForcedTrimKeepsAMajorityOfCopies(t *testing.T) {
	data := func(held paxos.Instance) holding { return holding{engine: true, held: held} }
	unproved := func(held paxos.Instance) holding { return holding{engine: true, unproved: true, held: held} }
	self := func(held paxos.Instance) holding { return holding{engine: true, self: true, held: held} }
	for _, c := range []struct {
		name string
		hs   []holding
		want paxos.Instance
	}{
		{"one of three is away", []holding{self(90), data(80), data(10)}, 80},
		{"two of three are away", []holding{self(90), data(20), data(10)}, 20},
		{"the own engine is behind", []holding{self(30), data(80), data(90)}, 30},
		{"alone", []holding{self(90)}, 90},
		{"a learner does not count", []holding{self(90), {held: 5}}, 90},
		{"but gets a copy", []holding{self(90), {held: 5, copying: true}}, 5},
		{"new data are no copy yet", []holding{self(90), data(10), unproved(80)}, 10},
		{"two with data, one of them new, and a witness", []holding{self(90), unproved(80), {witness: true, held: 90}}, 0},
		{"a witness is no copy of the data", []holding{self(90), data(10), {witness: true, held: 90}}, 10},
		{"on the witness, too", []holding{data(90), data(10), {witness: true, self: true, held: 90}}, 10},
		{"one with data among witnesses", []holding{self(90), {witness: true, held: 90}, {witness: true, held: 90}}, 0},
	} {
		if got := forced(c.hs); got != c.want {
			t.Errorf("%s: trimmed through %d, want %d", c.name, got, c.want)
		}
	}
}

// The alarm of a log that is nearly full comes before the limit, and does not flap.
func TestAlarmOfALargeLog(t *testing.T) {
	for _, c := range []struct {
		what      string
		was       bool
		size      int64
		more, now bool
		want      bool
	}{
		{"nearly full, and held back", false, 76, true, false, true},
		{"held back, and small", false, 75, true, false, false},
		{"nearly full, and about to be trimmed", false, 90, true, true, false},
		{"trimmed a little, and still held back", true, 90, true, true, true},
		{"nearly full of what is kept anyway", true, 90, false, false, false},
		{"small again", true, 60, true, true, false},
	} {
		if got := alarmed(c.was, c.size, 100, c.more, c.now); got != c.want {
			t.Errorf("%s: alarm %v", c.what, got)
		}
	}
}

func TestBaseFileThereAndBack(t *testing.T) {
	set, err := gtid.ParseSet("0f0e0d0c-0b0a-0908-0706-050403020100:1-9:20")
	if err != nil {
		t.Fatal(err)
	}
	want := relay.Base{
		Next: 77, Executed: set, Members: []byte(`{"cluster":"c"}`),
		Epoch: relay.Epoch{Number: 4, Node: 2, ServerUUID: gtid.UUID{1, 2}, Instance: 70},
	}
	f := toBaseFile(want, "log")
	got, err := f.base()
	if err != nil || got.Next != 77 || !got.Executed.Equal(set) || got.Epoch != want.Epoch || string(got.Members) != string(want.Members) {
		t.Errorf("got %+v, %v", got, err)
	}
	f.Format = 2
	if _, err := f.base(); err == nil {
		t.Error("a newer format was read")
	}
}
