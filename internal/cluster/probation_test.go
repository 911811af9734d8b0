package cluster

import (
	"testing"
	"time"
)

func TestProbationGrowsAndIsForgotten(t *testing.T) {
	var p Probation
	now := time.Minute
	if left := p.Note(now, true); left != 0 {
		t.Errorf("who was always well is on probation for %v", left)
	}
	want := FirstProbation
	for range 12 {
		if left := p.Note(now, false); left != want {
			t.Fatalf("unfit for the %d. time: probation of %v, not %v", p.Times, left, want)
		}
		now += time.Hour // while it is unfit the probation does not run
		if left := p.Note(now, false); left != want {
			t.Fatalf("it runs while the member is unfit: %v left", left)
		}
		if left := p.Note(now+want-1, true); left != 1 {
			t.Fatalf("%v left, a moment before the end", left)
		}
		now += want
		if left := p.Note(now, true); left != 0 {
			t.Fatalf("%v left after the end", left)
		}
		want = min(2*want, LongestProbation)
	}
	now += forgetAfter
	p.Note(now, true)
	if left := p.Note(now, false); left != FirstProbation {
		t.Errorf("after a long time without trouble the probation is %v", left)
	}
}
