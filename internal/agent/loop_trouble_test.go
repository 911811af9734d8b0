package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/paxos"
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

// A follower's server that stands still after its disk was full is started anew, once, when
// there is room again and it does not go on. One that lacks nothing is left alone.
func TestLoopStartsAStrandedServerAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newTestLoop(t)
		c := &canaries{limit: time.Hour}
		l.post(func() { l.canaries = c })
		w.setLead(paxos.Leadership{Leader: 2}, false)
		settle()
		w.take()
		full := func(full bool) {
			c.found.Store(nil)
			if full {
				c.found.Store(&cluster.Problem{Name: diskFullProblem, Severe: true})
			}
		}
		lack := func(set string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lacks = set
		}
		full(true)
		expect(t, w, "unable | ")
		full(false)
		time.Sleep(2 * strandedAfter)
		if got := w.take(); strings.Contains(got, "kill") {
			t.Errorf("it lacks nothing: %s", got)
		}
		full(true)
		lack("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-500")
		time.Sleep(2 * strandedAfter)
		if got := w.take(); strings.Contains(got, "kill") {
			t.Errorf("there is no room yet: %s", got)
		}
		full(false)
		time.Sleep(2 * strandedAfter)
		if got := w.take(); !strings.HasSuffix(got, "start replica") || strings.Count(got, "kill") != 1 {
			t.Errorf("there is room: %s", got)
		}
		time.Sleep(strandedFor)
		if got := w.take(); strings.Contains(got, "kill") {
			t.Errorf("once is enough: %s", got)
		}
	})
}
