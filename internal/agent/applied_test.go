package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// A server that always lacks the newest transactions gets on all the same; one that is
// far behind is never taken for further than it is, and costs a bounded number of places.
func TestAppliedUnderLoad(t *testing.T) {
	upTo := func(n int) *gtid.Set {
		if n == 0 {
			return &gtid.Set{}
		}
		set, err := gtid.ParseSet(fmt.Sprintf("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-%d", n))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	var a applied
	look := func(end, executed int) {
		t.Helper()
		a.note(place{through: paxos.Instance(end), all: upTo(end)}, upTo(executed))
		if int(a.through) > executed {
			t.Fatalf("applied through %d, executed %d", a.through, executed)
		}
		if len(a.places) > mostPlaces {
			t.Fatalf("%d places", len(a.places))
		}
	}
	end := 0
	for ; end < 1000; end++ {
		look(end, max(0, end-10))
	}
	if a.through != 989 {
		t.Errorf("it lacks ten transactions; applied through %d of %d", a.through, end)
	}
	for ; end < 6000; end++ { // it stands still
		look(end, 990)
	}
	const coarse = 5000 / (mostPlaces / 2) * 2
	for done := 990; done <= 5990; done += 5 {
		look(end, done)
		if int(a.through) < done-coarse {
			t.Fatalf("executed %d, applied through %d", done, a.through)
		}
		end++
	}
	if look(end, end); int(a.through) != end || len(a.places) > 0 {
		t.Errorf("it lacks nothing; applied through %d of %d, %d places", a.through, end, len(a.places))
	}
}

// How old what the server has executed is does not depend on how much is written.
func TestAppliedLag(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, rate := range []int{1, 100_000} { // transactions in a look
		set := func(n int) *gtid.Set {
			s, err := gtid.ParseSet(fmt.Sprintf("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-%d", n))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		var a applied
		const back = 8 // looks
		first := now.Add(time.Second)
		for n := 1; n < 10*mostPlaces; n++ {
			at := now.Add(time.Duration(n) * time.Second)
			executed := set(max(1, rate*(n-back)+rate/2))
			if n <= back { // the server has not even executed what there was at first
				executed = set(1)
			}
			a.note(place{paxos.Instance(n), set(1 + rate*n), at}, executed)
			got := a.lag(at)
			if n < back && got < time.Hour {
				t.Fatalf("it has not executed what there was at first, and is %v behind", got)
			}
			if n > back+1 && (got < back*time.Second || got > (back+2)*time.Second) {
				t.Fatalf("%d looks of %d transactions since %v: %v behind", n, rate, first, got)
			}
		}
		end := now.Add(time.Hour)
		if a.note(place{1 << 20, set(1), end}, set(1)); a.lag(end.Add(time.Minute)) != 0 {
			t.Error("it has executed everything and is behind")
		}
	}
}
