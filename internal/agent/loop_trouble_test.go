package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// set has slow actions wait or fail.
func (w *world) set(hold map[string]chan struct{}, fail map[string]error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold, w.fail = hold, fail
}

// A node that is stopped while its server starts kills it, and is stopped.
func TestLoopStopsWhileTheServerStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.set(map[string]chan struct{}{"start": make(chan struct{})}, nil)
		w.exit("signal: killed")
		settle()
		began := time.Now()
		l.requestStop(10 * time.Second)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		if got := w.take(); !strings.HasSuffix(got, "start") || !strings.Contains(got, "kill") {
			t.Errorf("the loop did %s", got)
		}
	})
}

// Two members whose promotion failed once must not hand leadership to each other
// for ever: under a new term each tries again.
func TestLoopTriesAgainUnderANewTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		settle()
		w.set(nil, map[string]error{"attach": errors.New("too many connections")})
		l.hear(2, announcement{Able: true})
		w.elect(1)
		settle()
		if got := w.take(); !strings.Contains(got, "transfer") {
			t.Fatalf("the loop did not give up: %s", got)
		}
		w.set(nil, nil)
		l.hear(2, announcement{Able: true})
		w.elect(2)
		settle()
		if got := w.take(); !strings.Contains(got, "OPEN") {
			t.Fatalf("the loop did not try again: %s", got)
		}
	})
}
