package host

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

func TestASkewedClockIsAsWrongAsItIsTold(t *testing.T) {
	real := paxos.Time(1000 * time.Second)
	c := &skewedClock{real: func() paxos.Time { return real }}
	var s Skew
	begun := c.read(s)
	check := func(what string, want time.Duration) {
		t.Helper()
		if got := time.Duration(c.read(s) - begun); got != want {
			t.Errorf("%s: %v have passed, want %v", what, got, want)
		}
	}
	real += paxos.Time(10 * time.Second)
	check("a right clock", 10*time.Second)
	s.PPM = 5000
	check("a change of the rate alone", 10*time.Second)
	real += paxos.Time(10 * time.Second)
	check("half a percent too fast", 20*time.Second+50*time.Millisecond)
	s.Ahead = time.Minute
	check("a jump", 80*time.Second+50*time.Millisecond)
	s.PPM = -5000
	real += paxos.Time(10 * time.Second) // seen only now: the old rate held until then
	check("a late look", 90*time.Second+100*time.Millisecond)
	real += paxos.Time(10 * time.Second)
	check("half a percent too slow", 100*time.Second+50*time.Millisecond)
	s.Ahead = 0
	check("no way back", 100*time.Second+50*time.Millisecond)
}

func TestASkewedClockFollowsItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skew")
	if _, err := SkewedClock(path); err == nil {
		t.Error("a clock without a file was not refused")
	}
	if err := WriteSkew(path, Skew{}); err != nil {
		t.Fatal(err)
	}
	clock, err := SkewedClock(path)
	if err != nil {
		t.Fatal(err)
	}
	before := clock()
	if err := WriteSkew(path, Skew{Ahead: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if passed := time.Duration(clock() - before); passed < time.Hour || passed > 2*time.Hour {
		t.Errorf("after a jump of an hour %v have passed", passed)
	}
}
