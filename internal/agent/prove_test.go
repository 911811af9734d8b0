package agent

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/audit"
)

// A comparison goes on where it was, for the same data only.
func TestProofGoesOn(t *testing.T) {
	var p proof
	if p.of(1) != nil || p.status(nil) == nil {
		t.Error("it does not begin at the beginning")
	}
	at := &audit.Cursor{Table: audit.Table{Schema: "s", Name: "b"}}
	p.note(proveAnswer{Next: at, Rows: 10, About: 40})
	p.note(proveAnswer{Next: at, Rows: 10, Skipped: []string{"s.c: it has no key"}})
	if p.of(1) != at {
		t.Error("it does not go on where it was")
	}
	s := p.status(&api.Copy{Phase: copyApplying, Donor: 3})
	if s.Phase != copyProving || s.Donor != 3 || s.Rows != 20 || s.RowsTotal != 40 || s.Remaining <= 0 {
		t.Errorf("status %+v", *s)
	}
	if p.of(2) != nil {
		t.Error("other data are not compared from the beginning")
	}
	p.note(proveAnswer{Rows: 5, About: 1})
	if rows, skipped := p.done(); rows != 5 || len(skipped) != 0 {
		t.Errorf("%d rows, skipped %v", rows, skipped)
	}
	if p.status(nil) != nil {
		t.Error("it is over and has a status")
	}
}

// Copies that differ again and again wait longer and longer, but not for ever.
func TestRefusedCopiesWait(t *testing.T) {
	var p proof
	now := time.Now()
	for n, want := range []time.Duration{0, 0, refusedPause, 2 * refusedPause, 4 * refusedPause} {
		p.refuse(now)
		if got := max(0, p.notUntil.Sub(now)); got != want || (p.wait(now) != nil) != (want > 0) {
			t.Errorf("after %d copies the next one waits %v, want %v", n+1, got, want)
		}
	}
	for range 100 {
		p.refuse(now)
	}
	if got := p.notUntil.Sub(now); got != refusedMost {
		t.Errorf("it waits %v", got)
	}
	p.done()
	if err := p.wait(now); err != nil {
		t.Error(err)
	}
}

// A master with unproved data that cannot give way tries less and less often, but not for
// ever longer; another member is asked at once, and the pause does not outlive its cause.
func TestGivingWayHasManners(t *testing.T) {
	var m manners
	now := time.Now()
	for n, want := range []time.Duration{giveWayAgain, 2 * giveWayAgain, 4 * giveWayAgain, 8 * giveWayAgain, giveWayMost, giveWayMost} {
		if !m.due(2, now) {
			t.Fatalf("try %d is not due", n+1)
		}
		if m.failed(now); m.due(2, now.Add(want-1)) || !m.due(2, now.Add(want)) {
			t.Errorf("after try %d the next one is due after %v, want %v", n+1, m.next.Sub(now), want)
		}
		now = now.Add(want)
	}
	m.failed(now)
	if !m.due(3, now) {
		t.Error("another member waits for what the first one did")
	}
	for range 100 {
		m.failed(now)
	}
	if got := m.next.Sub(now); got != giveWayMost {
		t.Errorf("the pause is %v", got)
	}
}

// A pass goes on behind a key, and with the next table if that one is gone.
func TestPassGoesOn(t *testing.T) {
	one := "1"
	table := func(name string) audit.Table { return audit.Table{Schema: "s", Name: name} }
	p := pass{tables: []audit.Table{table("a"), table("c")}}
	after := []audit.Value{{Int: &one}}
	for name, want := range map[string]struct {
		next int
		keep bool
	}{"a": {0, true}, "b": {1, false}, "c": {1, true}, "d": {2, false}} {
		p.goOn(audit.Cursor{Table: table(name), After: after})
		if p.next != want.next || (p.from.After != nil) != want.keep {
			t.Errorf("%s: table %d, from %v", name, p.next, p.from)
		}
	}
}

// What a member cannot sum up is named.
func TestUnknownPieces(t *testing.T) {
	pieces := []audit.Piece{{Table: audit.Table{Schema: "s", Name: "a"}}, {Table: audit.Table{Schema: "s", Name: "b"}}}
	known := audit.Result{Node: 1, Sums: []audit.Sum{{}, {}}}
	if why := unknown(pieces, []audit.Result{known, {Node: 2, Sums: []audit.Sum{{}, {Unknown: "it was changed"}}}}); why != "s.b on node 2: it was changed" {
		t.Errorf("got %q", why)
	}
	if why := unknown(pieces, []audit.Result{known}); why != "" {
		t.Errorf("got %q", why)
	}
}
