package agent

import (
	"log/slog"
	"time"

	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/telemetry"
)

// The marks of a failover, in the order in which they are passed.
const (
	markDetected = "detected"      // the old leader's lease is over here, or it gave it away
	markElected  = "elected"       // this node leads
	markReady    = "ready"         // and knows everything that was chosen before
	markEpoch    = "epoch_chosen"  // its epoch value came back from the log
	markApplied  = "applied"       // the server has executed everything before it
	markStopped  = "replica_off"   // replication is off
	markAttached = "tail_attached" // the tail listens
	markWritable = "writable"      // the server takes writes
	markOpen     = "gate_open"     // clients get through
)

// timeline measures how long each phase of one promotion took. It belongs to
// the loop's goroutine.
type timeline struct {
	log   *slog.Logger
	start time.Time
	last  time.Time
	steps []slog.Attr
	took  []events.Phase
	seen  map[string]bool
}

// begin starts a new promotion at the time of its cause.
func (t *timeline) begin(cause string, at time.Time) {
	t.start, t.last = at, at
	t.steps = append(t.steps[:0:0], slog.String(telemetry.KeyReason, cause))
	t.took, t.seen = nil, map[string]bool{}
}

// mark ends the phase that leads to a mark; later marks of the same name do not
// count.
func (t *timeline) mark(name string, now time.Time) {
	if t.seen == nil || t.seen[name] {
		return
	}
	t.seen[name] = true
	took := now.Sub(t.last).Round(10 * time.Microsecond)
	t.steps, t.took = append(t.steps, slog.Duration(name, took)), append(t.took, events.Phase{Name: name, Took: took})
	t.last = now
}

// finish reports the promotion, once, and returns how long it and its phases took.
func (t *timeline) finish(now time.Time, epoch uint64) (time.Duration, []events.Phase) {
	if t.seen == nil {
		return 0, nil
	}
	t.mark(markOpen, now)
	attrs := []any{
		slog.Uint64(telemetry.KeyEpoch, epoch),
		slog.Duration(telemetry.KeyDuration, now.Sub(t.start).Round(10*time.Microsecond)),
		slog.GroupAttrs("phases", t.steps...),
	}
	t.log.Info("this node is the master", attrs...)
	t.seen = nil
	return now.Sub(t.start), t.took
}
