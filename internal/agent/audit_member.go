package agent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/audit"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// The calls of a round of the audit.
const (
	callAuditPrepare = "audit_prepare" // auditRequest -> auditReady: expect the round of that id in the log
	callAuditResult  = "audit_result"  // auditRequest -> audit.Result: answers when the sums are known
	callAuditNow     = "audit_now"     // nothing -> api.AuditResult: to the leader
)

const (
	// armFor is how long a member expects a round that was announced.
	armFor = 5 * time.Second
	// holdLimit is how long the local server may be kept at one place of the log, so that
	// one that is nearLag behind gets there. It goes on executing what it was sent, and
	// replica_net_timeout is longer.
	holdLimit = nearLag + 2*time.Second
	// sumLimit bounds the reading of one round; a slow disk gives up then.
	sumLimit = 2 * time.Minute
)

type auditRequest struct {
	ID string `json:"id"`
	// Prove says that this member's new data are compared. Without it they do not
	// count in any round: they are no second witness of what they were copied from.
	Prove bool `json:"prove,omitempty"`
}

type auditReady struct {
	Able   bool   `json:"able"`
	Reason string `json:"reason,omitempty"`
}

// auditTurn is this member's part in one round.
type auditTurn struct {
	id   string
	ctx  context.Context
	end  context.CancelFunc
	done chan struct{} // closed when the rest is there
	res  audit.Result
	err  error

	mu    sync.Mutex
	begun bool
}

// begin reports whether the turn has not begun yet, and begins it.
func (t *auditTurn) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.begun
	t.begun = true
	return !was
}

func (t *auditTurn) fail(err error) {
	t.err = err
	close(t.done)
	t.end()
}

// errNotReached says that a member was too slow.
var errNotReached = errors.New("the round's place in the log was not reached in time")

// auditor is a member's part in audits. It is safe for concurrent use.
type auditor struct {
	mu   sync.Mutex
	turn *auditTurn // the newest
}

// onAuditPrepare gets ready for a round. The one before is given up.
func (a *Agent) onAuditPrepare(_ context.Context, _ paxos.NodeID, req auditRequest) (auditReady, error) {
	if reason := a.auditUnable(req.Prove); reason != "" {
		return auditReady{Reason: reason}, nil
	}
	a.arm(req.ID)
	return auditReady{Able: true}, nil
}

func (a *Agent) auditUnable(prove bool) string {
	s := a.loop.last.Load()
	switch {
	case s == nil || s.view.Engine.State != cluster.EngineRunning:
		return "its server does not run"
	case s.view.Restore.Need != cluster.NeedNothing || s.view.Restore.Ready || s.view.Engine.Errant != "":
		return "its data are replaced"
	case s.unproved && !prove:
		return "its data are new and not proved yet"
	case !s.view.Lead.Self && s.view.Engine.Replica != cluster.ReplicaRunning:
		return "it does not replicate"
	case s.lag > nearLag:
		return fmt.Sprintf("what it has executed is older than %v", nearLag)
	}
	return ""
}

// arm begins a turn; it fails by itself if its round does not come.
func (a *Agent) arm(id string) *auditTurn {
	t := &auditTurn{id: id, done: make(chan struct{})}
	t.ctx, t.end = context.WithTimeout(a.running, armFor+sumLimit)
	time.AfterFunc(armFor, func() {
		if t.begin() {
			t.fail(errNotReached)
		}
	})
	au := &a.auditor
	au.mu.Lock()
	old := au.turn
	au.turn = t
	au.mu.Unlock()
	if old != nil {
		old.end()
	}
	return t
}

func (a *Agent) auditTurn(id string) *auditTurn {
	a.auditor.mu.Lock()
	defer a.auditor.mu.Unlock()
	if t := a.auditor.turn; t != nil && t.id == id {
		return t
	}
	return nil
}

// holdForAudit is called where the local server's replication has been sent everything
// before a round's place in the log, and nothing behind. It returns when the snapshot is
// taken, or cannot be.
func (a *Agent) holdForAudit(ctx context.Context, text []byte) {
	r, err := audit.DecodeRound(text)
	if err != nil {
		a.log.Warn("round of an audit cannot be read", telemetry.KeyError, err)
		return
	}
	t := a.auditTurn(r.ID)
	if t == nil || !t.begin() {
		return // of another time, or not for this node
	}
	ctx, cancel := context.WithTimeout(ctx, holdLimit)
	defer cancel()
	a.takeTurn(ctx, t, &r)
}

// takeTurn takes the snapshot and has it summed up beside.
func (a *Agent) takeTurn(ctx context.Context, t *auditTurn, r *audit.Round) {
	set, err := gtid.ParseSet(r.Executed)
	if err != nil {
		t.fail(fmt.Errorf("read round: %w", err))
		return
	}
	session, end, err := a.snapshot(ctx, set)
	if err != nil {
		t.fail(err)
		return
	}
	a.wg.Go(func() {
		defer end()
		defer t.end()
		t.res, t.err = audit.SumAll(t.ctx, session, r.Pieces, r.Rate, r.Check)
		close(t.done)
	})
}

// errElsewhere says that a server does not stand where it should.
var errElsewhere = errors.New("the server holds another set of transactions than the round's")

// snapshot returns a session that sees exactly the transactions of a set. Nothing
// beyond it may be executed meanwhile.
func (a *Agent) snapshot(ctx context.Context, set *gtid.Set) (*sql.Conn, func(), error) {
	if err := a.stand(ctx, set); err != nil {
		return nil, nil, fmt.Errorf("take snapshot: %w", err)
	}
	session, end, err := a.db.Session(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, q := range []string{audit.Settings, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"} {
		if _, err := session.ExecContext(ctx, q); err != nil {
			end()
			return nil, nil, fmt.Errorf("take snapshot: %w", err)
		}
	}
	if have, err := a.db.executed(ctx); err != nil || !have.Equal(set) {
		end()
		return nil, nil, fmt.Errorf("take snapshot: %w", errors.Join(err, errElsewhere))
	}
	return session, end, nil
}

// stand returns when the server has executed a set. No session of a client is ended
// for that.
func (a *Agent) stand(ctx context.Context, set *gtid.Set) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		have, err := a.db.executed(ctx)
		if err != nil {
			return err
		}
		if have.ContainsSet(set) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d transactions: %w", minus(set, have).Count(), ctx.Err())
		}
	}
}

// onAuditResult answers when this member's sums of a round are known.
func (a *Agent) onAuditResult(ctx context.Context, _ paxos.NodeID, req auditRequest) (audit.Result, error) {
	t := a.auditTurn(req.ID)
	if t == nil {
		return audit.Result{}, errors.New("read sums: this node does not take part in that round")
	}
	select {
	case <-t.done:
	case <-t.ctx.Done():
		return audit.Result{}, fmt.Errorf("read sums: %w", t.ctx.Err())
	case <-ctx.Done():
		return audit.Result{}, ctx.Err()
	}
	res := t.res
	res.Node = a.cfg.Node.ID
	return res, t.err
}

// valve is where the master's new transactions can be kept from the log for a moment.
type valve struct {
	mu     sync.Mutex
	closed chan struct{} // closed when it opens again; nil: it is open
	inside int
	empty  chan struct{} // closed when nobody is inside; nil while nobody waits
}

// enter waits until the valve is open, and counts who is inside.
func (v *valve) enter() {
	v.mu.Lock()
	for v.closed != nil {
		wait := v.closed
		v.mu.Unlock()
		<-wait
		v.mu.Lock()
	}
	v.inside++
	v.mu.Unlock()
}

func (v *valve) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inside--; v.inside == 0 && v.empty != nil {
		close(v.empty)
		v.empty = nil
	}
}

// shut keeps everybody out until open is called, and returns when nobody is inside.
// One at a time may shut it.
func (v *valve) shut(ctx context.Context) error {
	v.mu.Lock()
	v.closed = make(chan struct{})
	if v.inside == 0 {
		v.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	v.empty = empty
	v.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		v.open()
		return ctx.Err()
	}
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed != nil {
		close(v.closed)
		v.closed = nil
	}
	v.empty = nil
}

// valved is a log behind a valve; see relay.Proposer.
type valved struct {
	log interface {
		Propose(data []byte, done func(paxos.Instance, error)) error
	}
	valve *valve
}

// Propose queues a value when the valve is open.
func (v valved) Propose(data []byte, done func(paxos.Instance, error)) error {
	v.valve.enter()
	defer v.valve.leave()
	return v.log.Propose(data, done)
}
