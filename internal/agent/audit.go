package agent

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/audit"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

const (
	// auditTick is how often a leader looks whether a pass is due.
	auditTick = 500 * time.Millisecond
	// roundTime is about how long the snapshots of one round live: as long a statement
	// that changes a table waits on every member.
	roundTime = 2 * time.Second
	// valveLimit is how long commits may be held up for one round.
	valveLimit = 2 * time.Second
	// passFailures is how often in a row a round may fail before its pass is given up.
	passFailures = 20
	passPause    = 500 * time.Millisecond
)

// audits is the leader's part: passes over all tables. One runs at a time.
type audits struct {
	mu   sync.Mutex
	wish chan chan auditOutcome // has room for a few
	pass uint64
}

type auditOutcome struct {
	res api.AuditResult
	err error
}

// pass is one pass over all tables.
type pass struct {
	a        *Agent
	n        uint64
	leader   paxos.Leadership
	res      api.AuditResult
	nodes    map[paxos.NodeID]bool
	tables   []audit.Table
	next     int           // the table that is cut into pieces
	after    []audit.Value // where in it; nil: its beginning
	found    map[paxos.NodeID]*audit.Verdict
	failures int
}

func (a *Agent) buildAudits() {
	a.audits.wish = make(chan chan auditOutcome, 8)
	handle(a, callAuditPrepare, a.onAuditPrepare)
	handle(a, callAuditResult, a.onAuditResult)
	handle(a, callAuditNow, a.onAuditNow)
}

// audit runs passes while this node leads, until ctx ends.
func (a *Agent) audit(ctx context.Context) {
	t := time.NewTicker(auditTick)
	defer t.Stop()
	last := time.Now()
	for {
		var asked chan auditOutcome
		select {
		case <-ctx.Done():
			return
		case asked = <-a.audits.wish:
		case <-t.C:
			c := a.cfg.Audit
			if !a.serves() {
				last = time.Now() // a new master waits a whole interval
			}
			if !c.Enabled || time.Since(last) < c.Interval.D() || !a.serves() {
				continue
			}
		}
		out := a.runPass(ctx)
		last = time.Now()
		if out.err != nil {
			a.log.Info("audit not finished", telemetry.KeyError, out.err)
		}
		if asked != nil {
			asked <- out
		}
	}
}

// serves reports that this node is the serving master.
func (a *Agent) serves() bool {
	s := a.loop.last.Load()
	return s != nil && s.state() == api.StateMaster
}

// AuditNow runs a pass at once and returns what it found.
func (a *Agent) AuditNow(ctx context.Context) (api.AuditResult, error) {
	leader := a.group.Leader().Leader
	if leader == 0 {
		return api.AuditResult{}, notMaster()
	}
	var res api.AuditResult
	err := a.call(ctx, leader, callAuditNow, nothing{}, &res)
	return res, err
}

func (a *Agent) onAuditNow(ctx context.Context, _ paxos.NodeID, _ nothing) (api.AuditResult, error) {
	if !a.serves() {
		return api.AuditResult{}, notMaster()
	}
	out := make(chan auditOutcome, 1)
	select {
	case a.audits.wish <- out:
	default:
		return api.AuditResult{}, api.Refused("busy", "audits are waiting already", "ask again when they are done: phxsql why shows it")
	}
	select {
	case o := <-out:
		return o.res, o.err
	case <-ctx.Done():
		return api.AuditResult{}, ctx.Err()
	case <-a.running.Done():
		return api.AuditResult{}, errStopped
	}
}

// runPass goes over all tables once. It ends early when leadership changes.
func (a *Agent) runPass(ctx context.Context) auditOutcome {
	if !a.history.readable() {
		return auditOutcome{err: api.Refused("old_members", "not every member is known to read audits", "start all members, with this release or a newer one")}
	}
	a.audits.pass++
	p := &pass{a: a, n: a.audits.pass, leader: a.group.Leader().Leadership, nodes: map[paxos.NodeID]bool{}, found: map[paxos.NodeID]*audit.Verdict{}}
	began := time.Now()
	err := p.run(ctx)
	for id := range p.nodes {
		p.res.Nodes = append(p.res.Nodes, id)
	}
	p.res.Took = api.Seconds(time.Since(began))
	p.verdicts()
	if err == nil {
		reason := ""
		if len(p.res.Skipped) > 0 {
			reason = fmt.Sprintf("%d tables cannot be compared: %s", len(p.res.Skipped), p.res.Skipped[0])
		}
		a.history.record(events.Event{Kind: events.Audited, Took: time.Since(began), Reason: reason, Audit: &events.Audit{
			Round: p.n, Tables: p.res.Tables, Rows: p.res.Rows, Nodes: p.res.Nodes,
		}})
		a.log.Info("audit done", telemetry.KeyCount, p.res.Rows, telemetry.KeyDuration, time.Since(began))
	}
	return auditOutcome{p.res, err}
}

func (p *pass) run(ctx context.Context) error {
	session, end, err := p.a.db.Session(ctx)
	if err != nil {
		return err
	}
	defer end()
	if _, err := session.ExecContext(ctx, audit.Settings); err != nil {
		return fmt.Errorf("prepare audit: %w", err)
	}
	if p.tables, err = audit.Tables(ctx, session); err != nil {
		return err
	}
	p.res.Tables = len(p.tables)
	for p.next < len(p.tables) {
		pieces, err := p.cut(ctx, session)
		if err != nil {
			return err
		}
		if err := p.compare(ctx, pieces); err != nil {
			return err
		}
	}
	return nil
}

// cut returns the pieces of the next round.
func (p *pass) cut(ctx context.Context, session *sql.Conn) ([]audit.Piece, error) {
	room := max(1, min(audit.MaxPieces, p.a.cfg.Audit.Rate*int(roundTime/time.Second)/audit.PieceRows))
	var pieces []audit.Piece
	size := 0
	for p.next < len(p.tables) && len(pieces) < room && size < audit.MaxRound/2 {
		t := p.tables[p.next]
		piece, ok, why, err := audit.Next(ctx, session, t, p.after)
		if err != nil {
			return nil, err
		}
		if why != "" {
			p.res.Skipped = append(p.res.Skipped, t.String()+": "+why)
		}
		if ok {
			pieces = append(pieces, piece)
			size += len(piece.String()) + 200
		}
		if p.after = piece.Through; !ok || piece.Through == nil {
			p.next, p.after = p.next+1, nil
		}
	}
	return pieces, nil
}

// compare has pieces compared, and looks again, at another place of the log, at those
// that differ.
func (p *pass) compare(ctx context.Context, pieces []audit.Piece) error {
	if len(pieces) == 0 {
		return nil
	}
	first, err := p.look(ctx, pieces, false)
	if err != nil || len(first) == 0 {
		return err
	}
	var again []audit.Piece
	for i := range first {
		again = append(again, pieces[first[i].Piece])
		first[i].Piece = i
	}
	second, err := p.look(ctx, again, true)
	if err != nil {
		return err
	}
	for _, v := range audit.Confirm(again, first, second) {
		if f := p.found[v.Node]; f != nil {
			f.Where, f.Tie, f.Known = append(f.Where, v.Where...), f.Tie && v.Tie, min(f.Known, v.Known)
		} else {
			p.found[v.Node] = &v
		}
	}
	return nil
}

// look runs a round until it succeeds. Its members may be busy for a moment.
func (p *pass) look(ctx context.Context, pieces []audit.Piece, check bool) ([]audit.Difference, error) {
	for {
		if p.a.group.Leader().Term != p.leader.Term || !p.a.serves() {
			return nil, notMaster()
		}
		results, err := p.round(ctx, pieces, check)
		if err == nil {
			p.failures = 0
			if !check {
				p.count(results)
			}
			return audit.Judge(len(pieces), results, p.a.cfg.Node.ID), nil
		}
		if p.failures++; p.failures >= passFailures {
			return nil, fmt.Errorf("audit: a round failed %d times: %w", p.failures, err)
		}
		p.a.log.Debug("round of an audit failed", telemetry.KeyError, err)
		t := time.NewTimer(passPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

func (p *pass) count(results []audit.Result) {
	for _, r := range results {
		p.nodes[r.Node] = true
		if r.Node == p.a.cfg.Node.ID {
			for _, s := range r.Sums {
				p.res.Rows += s.Rows
			}
		}
	}
}

// round has every able member sum the pieces up at one place of the log.
func (p *pass) round(ctx context.Context, pieces []audit.Piece, check bool) ([]audit.Result, error) {
	a := p.a
	ctx, cancel := context.WithTimeout(ctx, armFor+sumLimit)
	defer cancel()
	r := audit.Round{ID: rand.Text(), Pass: p.n, Check: check, Pieces: pieces, Rate: a.cfg.Audit.Rate}
	others := a.auditMembers(ctx, r.ID)
	if len(others) == 0 {
		return nil, errors.New("compare rows: no other member can take part now")
	}
	own := a.arm(r.ID)
	if err := a.place(ctx, own, &r); err != nil {
		own.end()
		return nil, err
	}
	results := make([]audit.Result, len(others)+1)
	errs := make([]error, len(others)+1)
	var wg sync.WaitGroup
	for i, id := range append(others, a.cfg.Node.ID) {
		wg.Go(func() { errs[i] = a.call(ctx, id, callAuditResult, auditRequest{r.ID}, &results[i]) })
	}
	wg.Wait()
	var known []audit.Result
	for i, err := range errs {
		if err == nil && len(results[i].Sums) == len(pieces) {
			known = append(known, results[i])
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.log.Debug("not all members have sums", telemetry.KeyError, err)
	}
	if len(known) < 2 || errs[len(others)] != nil {
		return nil, fmt.Errorf("compare rows: fewer than two members have sums: %w", errors.Join(errs...))
	}
	return known, nil
}

// auditMembers asks the members with data to expect a round, and returns those that
// do.
func (a *Agent) auditMembers(ctx context.Context, id string) []paxos.NodeID {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	var mu sync.Mutex
	var able []paxos.NodeID
	var wg sync.WaitGroup
	for _, m := range a.group.Leader().Members.List {
		if _, age, ok := a.peers.get(m.ID, time.Now()); m.ID == a.cfg.Node.ID || m.Role == paxos.Witness || !ok || age > aliveFor {
			continue
		}
		wg.Go(func() {
			var ready auditReady
			if err := a.call(ctx, m.ID, callAuditPrepare, auditRequest{id}, &ready); err != nil || !ready.Able {
				a.log.Debug("member does not take part in the audit", telemetry.KeyMember, uint64(m.ID), telemetry.KeyReason, ready.Reason, telemetry.KeyError, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			able = append(able, m.ID)
		})
	}
	wg.Wait()
	return able
}

// place puts a round into the log at a place where this server stands exactly: new
// transactions are kept from the log until its snapshot is taken, and those before are
// waited for.
func (a *Agent) place(ctx context.Context, own *auditTurn, r *audit.Round) error {
	ctx, cancel := context.WithTimeout(ctx, valveLimit)
	defer cancel()
	if err := a.valve.shut(ctx); err != nil {
		return fmt.Errorf("hold commits: %w", err)
	}
	defer a.valve.open()
	if err := a.tail.quiet(ctx); err != nil {
		return err
	}
	if err := a.journal.WaitThrough(ctx, a.group.Chosen()); err != nil {
		return err
	}
	r.Executed = a.journal.Executed().String()
	text, err := r.Encode()
	if err != nil {
		return err
	}
	if !own.begin() {
		return errNotReached
	}
	if _, err := a.onNotice(ctx, a.cfg.Node.ID, noticeRequest{Kind: entry.Audit, Text: string(text)}); err != nil {
		own.fail(err)
		return fmt.Errorf("place round: %w", err)
	}
	a.takeTurn(ctx, own, r)
	select {
	case <-own.done:
		return own.err // there is no snapshot, or nothing to read
	default:
		return nil
	}
}

// quiet returns when nothing that the tail has proposed is on its way.
func (t *tailOf) quiet(ctx context.Context) error {
	tail := t.newest.Load()
	if tail == nil {
		return errors.New("hold commits: there is no tail")
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if s := tail.Stats(); s.Attached && s.InFlight == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("hold commits: %w", ctx.Err())
		}
	}
}

// verdicts tells whose rows differ. The members hear of it from the log.
func (p *pass) verdicts() {
	for _, v := range p.found {
		differ := map[string]bool{}
		e := &events.Audit{Round: p.n, Table: v.Where[0].Table.String(), Range: v.Where[0].String(), Nodes: v.Right}
		for _, w := range v.Where {
			if t := w.Table.String(); !differ[t] {
				differ[t] = true
				e.Differ = append(e.Differ, t)
			}
		}
		p.tell(v, e)
	}
}

// tell puts a verdict into the journal. One that is not settled names no member that
// is to act on it.
func (p *pass) tell(v *audit.Verdict, e *events.Audit) {
	ev := events.Event{Kind: events.Diverged, Peer: v.Node, Cause: events.CauseDiverged, Audit: e}
	hint := "the member leaves service and gets the data anew; see phxsql why"
	switch settled := v.Settled(p.dataMembers()); {
	case !v.Tie:
		ev.Reason = fmt.Sprintf("rows of node %d differ from those of nodes %v: %s, %s", v.Node, v.Right, e.Table, e.Range)
	case settled:
		ev.Reason = fmt.Sprintf("rows of node %d differ from the master's, and no majority can tell which are right; the master's count: %s, %s", v.Node, e.Table, e.Range)
	default:
		ev.Peer, hint = 0, "start the members that are away; the next audit tells whose rows are right"
		ev.Reason = fmt.Sprintf("rows of node %d and of the master differ, and only %d members could be asked; nobody acts on it before the others are: %s, %s", v.Node, v.Known, e.Table, e.Range)
	}
	p.a.log.Error("rows differ", telemetry.KeyMember, uint64(v.Node), telemetry.KeyReason, ev.Reason, telemetry.KeyHint, hint)
	p.a.history.record(ev)
	p.res.Diverged = append(p.res.Diverged, api.AuditDivergence{Node: v.Node, Tie: v.Tie, Undecided: ev.Peer == 0, Tables: e.Differ, Where: e.Range})
}

// dataMembers is how many members have a server.
func (p *pass) dataMembers() int {
	n := 0
	for _, m := range p.a.group.Leader().Members.List {
		if m.Role != paxos.Witness {
			n++
		}
	}
	return n
}

// proposerOf is the way of the master's transactions into the log.
func (a *Agent) proposerOf(log relay.Proposer) relay.Proposer { return valved{log, &a.valve} }
