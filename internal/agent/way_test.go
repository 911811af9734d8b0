package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// The log is executed where that is not much longer than a copy.
func TestTheLogOrACopy(t *testing.T) {
	for _, c := range []struct {
		choice wayChoice
		copy   bool
	}{
		{wayChoice{log: 0, replay: 8 * mib, data: 200 * mib, rate: 100 * mib}, false},
		{wayChoice{log: 200 * mib, replay: 8 * mib, data: 200 * mib, rate: 100 * mib}, false},
		{wayChoice{log: 8 * gib, replay: 8 * mib, data: 10 * gib, rate: 100 * mib}, true},
		{wayChoice{log: 8 * gib, replay: 8 * mib, data: 100 * gib, rate: 100 * mib}, false},
		{wayChoice{log: 8 * gib, replay: 80 * mib, data: 10 * gib, rate: 100 * mib}, false},
		{wayChoice{log: gib, replay: 8 * mib, data: 200 * mib, rate: 100 * mib}, true},
		{wayChoice{log: gib, replay: 8 * mib, data: 200 * mib, rate: 0}, false},
	} {
		if got := c.choice.copyIsShorter(); got != c.copy {
			t.Errorf("%s: a copy is shorter: %v", c.choice, got)
		}
	}
}

// What is believed counts until it is known how fast the log is executed. It is known, too,
// when more comes meanwhile than is executed.
func TestTheRateIsMeasured(t *testing.T) {
	var w way
	now := time.Now()
	o := offer{Bytes: 200 * mib, Rate: 100 * mib}
	if !w.note(1, 2*gib, 7, now) {
		t.Fatal("nobody thinks of a copy")
	}
	if c, shorter := w.choose(o, 8*mib); !shorter || c.replay != 8*mib {
		t.Errorf("chose %v, a copy %v", c, shorter)
	}
	if w.note(1, 2*gib-100*mib, 7+100*mib, now.Add(time.Second)) {
		t.Error("a copy is thought of all the time")
	}
	if s := w.status(nil); s.Phase != copyExecuting || s.Bytes != 100*mib || s.Total != 2*gib || s.Rate != 0 || !strings.Contains(s.Why, "2GiB of log") {
		t.Errorf("status %+v", *s)
	}
	if !w.note(1, gib, 7+gib, now.Add(wayAgain)) {
		t.Error("it is not thought of again")
	}
	if c, shorter := w.choose(o, 8*mib); shorter || c.replay < 100*mib {
		t.Errorf("chose %v, a copy %v", c, shorter)
	}
	if s := w.status(nil); s.Rate < 100*mib || s.Remaining <= 0 {
		t.Errorf("status %+v", *s)
	}
	if w.note(2, 5, 0, now.Add(wayAgain)); w.status(nil).Total != 5 {
		t.Error("other data are measured with the old ones")
	}
	if w.note(3, 90*mib, 0, now); !w.note(3, 150*mib, 4*mib, now.Add(wayAgain)) {
		t.Error("it is not thought of")
	}
	if c, shorter := w.choose(o, 8*mib); !shorter || c.replay > mib {
		t.Errorf("more comes than is executed: chose %v, a copy %v", c, shorter)
	}
	if w.forget(); w.status(nil) != nil {
		t.Error("it is over and has a status")
	}
}

// A copy that is only shorter is given up when there is none; then the log is executed.
func TestLoopPrefersACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		w.setLead(paxos.Leadership{Leader: 2}, false)
		l.post(l.doubt)
		settle()
		w.take()
		data := l.last.Load().data
		w.mu.Lock()
		w.fail["fetch"] = errors.New("no donor")
		w.mu.Unlock()
		l.post(func() { l.prefer(data-1, "it is shorter") })
		expect(t, w, " | ")
		l.post(func() { l.prefer(data, "it is shorter") })
		expect(t, w, "unable able | unreplica fetch replica")
		if s := l.last.Load(); s.fresh || s.view.Failed.Times != 0 {
			t.Errorf("fresh %v, failed %+v", s.fresh, s.view.Failed)
		}
		l.post(func() { l.prefer(data, "it is shorter") })
		expect(t, w, " | ")
	})
}
