package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// A node with new, empty data that could get all of it from the log executes the log,
// unless a copy of another member's data would clearly take less time. That is told from
// the bytes there are to execute and to copy, and from the rates: the donor's, and what
// this node is believed to execute, or, once it is known, does execute. Data that are
// proved are never given up for a copy because that would be shorter.

// callDistance asks a member: distanceRequest -> distanceAnswer.
const callDistance = "distance"

type distanceRequest struct {
	Executed string `json:"executed"`
}

type distanceAnswer struct {
	// Bytes of the log follow what the server has executed; meaningless without Whole.
	Bytes int64 `json:"bytes"`
	Whole bool  `json:"whole"` // the log reaches back so far
}

func (a *Agent) onDistance(_ context.Context, _ paxos.NodeID, req distanceRequest) (distanceAnswer, error) {
	set, err := gtid.ParseSet(req.Executed)
	if err != nil {
		return distanceAnswer{}, err
	}
	n, _, err := a.journal.Distance(set)
	return distanceAnswer{Bytes: int64(n), Whole: err == nil}, nil
}

const (
	wayEvery = time.Second
	// wayAgain is how often a copy is thought of while the log is executed.
	wayAgain = 10 * time.Second
	// wayMeasured is how long the log must have been executed for its rate to be known.
	wayMeasured = 5 * time.Second
	// copyFixed is what a copy takes besides its bytes: the exchange of the data and a
	// start of the server. It must be copyGain times as short as the log, and spare
	// copyWorth, to be worth what it costs the donor.
	copyFixed = 10 * time.Second
	copyGain  = 2
	copyWorth = 30 * time.Second
)

// wayChoice is what a choice between the log and a copy depends on, in bytes and bytes
// per second.
type wayChoice struct {
	log, replay int64
	data, rate  int64
}

// times estimates how long each way takes. A copy begins below its rate.
func (c wayChoice) times() (byLog, byCopy time.Duration) {
	span := func(n, rate int64) time.Duration {
		return time.Duration(float64(n) / float64(max(1, rate)) * float64(time.Second))
	}
	return span(c.log, c.replay), span(c.data+c.data/2, c.rate) + copyFixed
}

func (c wayChoice) copyIsShorter() bool {
	byLog, byCopy := c.times()
	return byLog > copyGain*byCopy+copyWorth
}

func (c wayChoice) String() string {
	byLog, byCopy := c.times()
	return fmt.Sprintf("to execute %v of log takes about %v, a copy of %v about %v",
		config.Size(c.log), byLog.Round(time.Second), config.Size(c.data), byCopy.Round(time.Second))
}

// way is what a node knows of how its new data are filled. It is safe for concurrent use.
type way struct {
	mu      sync.Mutex
	data    int       // which data: see loop.data
	since   time.Time // when the way was first known; zero: it is not known
	from    int64     // bytes that were executed then, counted from somewhere
	done    int64     // bytes executed since
	left    int64     // bytes to execute; more come meanwhile
	seen    time.Time // when left was
	thought time.Time // when a copy was thought of last
	why     string
}

// note takes in how much of the log is left to execute and how much is executed, counted
// from the same place each time, and reports whether it is time to think of a copy.
func (w *way) note(data int, left, passed int64, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() || w.data != data {
		w.data, w.from, w.since, w.thought, w.why = data, passed, now, time.Time{}, ""
	}
	w.left, w.done, w.seen = left, max(0, passed-w.from), now
	if now.Sub(w.thought) < wayAgain {
		return false
	}
	w.thought = now
	return true
}

// rate is how many bytes are executed in a second; 0 if that is not known yet. mu is held.
func (w *way) rate() int64 {
	took := w.seen.Sub(w.since)
	if took < wayMeasured {
		return 0
	}
	return int64(float64(w.done) / took.Seconds())
}

// choose holds the way by the log against a copy.
func (w *way) choose(o offer, believed int64) (wayChoice, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := wayChoice{log: w.left, replay: believed, data: o.Bytes, rate: o.Rate}
	if r := w.rate(); r > 0 {
		c.replay = r
	}
	w.why = c.String()
	return c, c.copyIsShorter()
}

func (w *way) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Time{}
}

// status makes the progress of executing the log that of a copy for people, where there
// is none.
func (w *way) status(c *api.Copy) *api.Copy {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		return c
	}
	if c != nil {
		s := *c
		s.Why = w.why
		return &s
	}
	s := &api.Copy{Phase: copyExecuting, Bytes: w.done, Total: w.done + w.left, Rate: w.rate(), Why: w.why}
	if s.Rate > 0 {
		s.Remaining = api.Seconds(float64(w.left) / float64(s.Rate) * float64(time.Second))
	}
	return s
}

// pursueWay looks how new data are filled, until ctx ends.
func (a *Agent) pursueWay(ctx context.Context) {
	t := time.NewTicker(wayEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s := a.loop.last.Load()
		switch {
		case s == nil || !s.unproved || s.followed:
			a.way.forget()
		case s.fresh && s.view.Restore.Need == cluster.NeedNothing && !s.view.Restore.Ready && s.view.Engine.State == cluster.EngineRunning && s.seen.Executed != nil:
			a.wayStep(ctx, s)
		}
	}
}

// wayStep asks how much of the log is left, and now and then whether a copy is shorter.
func (a *Agent) wayStep(ctx context.Context, s *snapshot) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	leader := a.group.Leader().Leader
	if leader == 0 || leader == a.cfg.Node.ID {
		return
	}
	var d distanceAnswer
	if err := a.call(ctx, leader, callDistance, distanceRequest{s.seen.Executed.String()}, &d); err != nil || !d.Whole {
		a.log.Debug("it is not known how long the log is", telemetry.KeyError, err)
		return
	}
	_, passed, err := a.journal.Distance(s.seen.Executed)
	if err != nil {
		a.log.Debug("it is not known how much is executed", telemetry.KeyError, err)
		return
	}
	if !a.way.note(s.data, d.Bytes, int64(passed), time.Now()) {
		return
	}
	offers, _ := askOthers[offer](ctx, a, callOffer, nothing{})
	o, err := chooseDonor(offers, a.install.Version.Release(), nil)
	if err != nil {
		return // the log it is
	}
	c, shorter := a.way.choose(o, int64(a.cfg.Copy.ReplayRate))
	a.log.Info("the log or a copy", telemetry.KeyReason, c.String(), telemetry.KeyState, map[bool]string{true: "copy", false: "log"}[shorter])
	if shorter {
		a.loop.post(func() { a.loop.prefer(s.data, "a copy is shorter than the log: "+c.String()) })
	}
}

// prefer takes in that a copy is shorter than the log.
func (l *loop) prefer(data int, reason string) {
	if data == l.data && l.restored && l.fresh && !l.followed && l.lost == "" {
		l.lost, l.preferred = reason, true
	}
}

// unprefer goes back to the log, if that is a way at all: there was no copy.
func (l *loop) unprefer(err error) bool {
	if !l.preferred {
		return false
	}
	l.log.Info("no copy, the log is executed", telemetry.KeyError, err)
	l.lost, l.preferred, l.fresh = "", false, false
	return true
}
