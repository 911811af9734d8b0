package agent

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A copy goes at its rate, slower while commits take longer, and never stops.
func TestPacer(t *testing.T) {
	p := newPacer(64 << 20)
	for range 100 {
		p.learn(2 * time.Millisecond)
	}
	p.begin()
	now := time.Unix(100, 0)
	total, waited := 0, time.Duration(0)
	for total < 32<<20 {
		d := p.wait(256<<10, now)
		now, waited, total = now.Add(d), waited+d, total+256<<10
	}
	if waited < 1900*time.Millisecond || waited > 2100*time.Millisecond {
		t.Errorf("32 MiB at 16 MiB/s took %v", waited)
	}
	for range 20 {
		p.learn(2 * time.Millisecond)
	}
	if p.current() != 64<<20 {
		t.Errorf("with quick commits the rate is %d", p.current())
	}
	for range 30 {
		p.learn(5 * time.Millisecond)
	}
	if p.current() != 4<<20 {
		t.Errorf("with slow commits the rate is %d", p.current())
	}
	p.end()
}

func TestCommitMeter(t *testing.T) {
	var m commitMeter
	m.turn()
	if m.recent() != 0 {
		t.Errorf("nothing took %v", m.recent())
	}
	for n := range 100 {
		m.note(time.Millisecond)
		if n%10 == 0 {
			m.note(80 * time.Millisecond)
		}
	}
	m.turn()
	if got := m.recent(); got < 60*time.Millisecond || got > 80*time.Millisecond {
		t.Errorf("95 of 100 took at most %v", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(int64(commitFirst), int64(30*time.Second)).Draw(t, "d"))
		b := bucketOf(d)
		if bucketStart(b) > d || bucketStart(b+1) <= d {
			t.Fatalf("%v is in bucket %d from %v", d, b, bucketStart(b))
		}
	})
}

// Another limit counts at once, and a copy begins with a quarter of it again.
func TestPacerTakesAnotherLimit(t *testing.T) {
	p := newPacer(1600)
	p.begin()
	for range paceStep {
		p.learn(time.Millisecond)
	}
	if p.limit(1600); p.current() != 1600 {
		t.Errorf("rate %d, with the limit that it had", p.current())
	}
	if p.limit(800); p.current() != 200 {
		t.Errorf("rate %d with half the limit", p.current())
	}
	for range 2 * paceStep {
		p.learn(time.Millisecond)
	}
	if p.current() != 800 {
		t.Errorf("rate %d in the end", p.current())
	}
}
