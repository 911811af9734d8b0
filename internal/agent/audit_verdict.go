package agent

import (
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/telemetry"
)

// judged is called with each event that this node hears of for the first time: one may
// say that this node's rows differ.
func (h *history) judged(e events.Event) {
	if e.Kind == events.Diverged && e.Peer == h.a.cfg.Node.ID && e.Instance != 0 {
		go h.a.loop.post(func() { h.a.loop.rowsDiffer(e.Reason) })
	}
}

// verdict is the newest judgement that this node's rows differ, unless it has got other
// data since.
func (h *history) verdict() (events.Event, bool) {
	var found events.Event
	open := false
	for _, e := range h.newest(0) {
		switch {
		case e.Kind == events.Diverged && e.Peer == h.a.cfg.Node.ID:
			found, open = e, true
		case e.Kind == events.Rebuilt && e.Node == h.a.cfg.Node.ID:
			open = false
		}
	}
	return found, open
}

// rowsDiffer takes this node out of service: its rows are not those of the others. It
// neither leads nor serves reads until it has another member's data.
func (l *loop) rowsDiffer(reason string) {
	l.log.Error("this node's rows differ", telemetry.KeyReason, reason)
	l.differs, l.lost, l.wrong = true, "the audit found that "+reason, reason
}

// auditProblem names a verdict in the status until there are other data.
func (l *loop) auditProblem() (cluster.Problem, bool) {
	return cluster.Problem{
		Name: "rows_differ", Severe: true, Reason: l.wrong,
		Hint: "it gets another member's data by itself, its own are moved aside, to mysqld/data.old; 'phxsql why' tells more; to use another machine: 'phxsql join --replace'",
	}, l.wrong != ""
}
