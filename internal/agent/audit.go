package agent

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	// undecidedAgain is how long after a pass that could not decide the next one comes,
	// at first; then twice as long each time.
	undecidedAgain = 10 * time.Second
)

// audits is the leader's part: passes over all tables. One runs at a time; rounds of
// others, which compare a member's new data, come in between.
type audits struct {
	wish chan chan auditOutcome // has room for a few
	pass uint64
	one  chan struct{} // holds something while a round is under way
	soon atomic.Bool   // a pass is due at once
	// undecided says that the last pass found what only members could judge that were
	// away, or whose data were not proved; it belongs to the goroutine of passes.
	undecided bool
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
	ruled    []audit.Piece // accounts and the like, still to be compared
	tables   []audit.Table
	next     int          // the table that is cut into pieces
	from     audit.Cursor // where in it
	found    map[paxos.NodeID]*audit.Verdict
	failures int
	only     paxos.NodeID // the one member whose new data are compared; 0: all members with proved ones
	rate     int          // rows per second that each member reads
}

func (a *Agent) buildAudits() {
	a.audits.wish, a.audits.one = make(chan chan auditOutcome, 8), make(chan struct{}, 1)
	handle(a, callAuditPrepare, a.onAuditPrepare)
	handle(a, callAuditResult, a.onAuditResult)
	handle(a, callAuditNow, a.onAuditNow)
	handle(a, callProve, a.onProve)
}

// audit runs passes while this node leads, until ctx ends.
func (a *Agent) audit(ctx context.Context) {
	t := time.NewTicker(auditTick)
	defer t.Stop()
	last := time.Now()
	for again := time.Duration(0); ; {
		var asked chan auditOutcome
		select {
		case <-ctx.Done():
			return
		case asked = <-a.audits.wish:
		case <-t.C:
			c := a.settled().Audit
			if !a.serves() {
				last = time.Now() // a new master waits a whole interval
			}
			wait := c.Interval.D()
			if again > 0 {
				wait = min(wait, again)
			}
			if !c.Enabled || !a.serves() || time.Since(last) < wait && !a.audits.soon.Load() {
				continue
			}
			a.audits.soon.Store(false)
		}
		out := a.runPass(ctx)
		last = time.Now()
		if again = min(2*again, a.settled().Audit.Interval.D()); !a.audits.undecided {
			again = 0
		} else if again == 0 {
			again = undecidedAgain
		}
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
		return auditOutcome{err: errOldMembers()}
	}
	if s := a.loop.last.Load(); s != nil && s.unproved {
		return auditOutcome{err: api.Refused("unproved", "the master's own data are new and not proved yet", "ask again when phxsql status does not say so any more")}
	}
	a.audits.pass++
	p := a.newPass(a.audits.pass, a.settled().Audit.Rate)
	began := time.Now()
	err := p.run(ctx)
	for id := range p.nodes {
		p.res.Nodes = append(p.res.Nodes, id)
	}
	p.res.Took = api.Seconds(time.Since(began))
	p.verdicts()
	if err == nil {
		a.history.record(events.Event{Kind: events.Audited, Took: time.Since(began), Reason: p.remark(), Audit: &events.Audit{
			Round: p.n, Tables: p.res.Tables, Rows: p.res.Rows, Nodes: p.res.Nodes,
		}})
		a.log.Info("audit done", telemetry.KeyCount, p.res.Rows, telemetry.KeyDuration, time.Since(began))
	}
	return auditOutcome{p.res, err}
}

// remark is what people should know of a pass that went through.
func (p *pass) remark() string {
	var parts []string
	if n := len(p.res.Skipped); n > 0 {
		parts = append(parts, fmt.Sprintf("%d tables, or accounts of members, cannot be compared: %s", n, p.res.Skipped[0]))
	}
	for _, a := range p.res.Advice {
		parts = append(parts, a+" (hint: "+api.AdviceHint+")")
	}
	return strings.Join(parts, "; ")
}

func errOldMembers() *api.Error {
	return api.Refused("old_members", "not every member is known to read audits", "start all members, with this release or a newer one")
}

func (a *Agent) newPass(n uint64, rate int) *pass {
	return &pass{a: a, n: n, rate: rate, leader: a.group.Leader().Leadership, nodes: map[paxos.NodeID]bool{}, found: map[paxos.NodeID]*audit.Verdict{}}
}

// begin returns a session to cut tables with, and lists them.
func (p *pass) begin(ctx context.Context) (*sql.Conn, func(), error) {
	session, end, err := p.a.db.Session(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err = session.ExecContext(ctx, audit.Settings); err != nil {
		err = fmt.Errorf("prepare audit: %w", err)
	} else {
		p.tables, err = audit.Tables(ctx, session)
	}
	if err == nil {
		p.ruled, err = audit.RulePieces(ctx, session)
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	p.res.Tables = len(p.tables)
	return session, end, nil
}

func (p *pass) run(ctx context.Context) error {
	session, end, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	for len(p.ruled) > 0 || p.next < len(p.tables) {
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
	pieces := p.ruled
	p.ruled = nil
	room := roundRoom(len(pieces), p.rate)
	size := 200 * len(pieces)
	for p.next < len(p.tables) && len(pieces) < room && size < audit.MaxRound/2 {
		t := p.tables[p.next]
		p.from.Table = t
		piece, ok, why, err := audit.Next(ctx, session, p.from)
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
		if p.from = (audit.Cursor{Table: t, Key: piece.Key, After: piece.Through}); !ok || piece.Through == nil {
			p.next, p.from = p.next+1, audit.Cursor{}
		}
	}
	return pieces, nil
}

// roundRoom is how many pieces a round has: those with a rule, and as many of rows as the
// rate allows.
func roundRoom(ruled, rate int) int {
	return min(audit.MaxPieces, ruled+max(1, rate*int(roundTime/time.Second)/audit.PieceRows))
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
	first, advice := audit.Advise(again, first, second)
	for _, d := range advice {
		p.advise(again[d.Piece], &d)
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

// look runs a round until it succeeds. Its members may be busy for a moment. Of new data
// nothing may be unknown, if that can be helped.
func (p *pass) look(ctx context.Context, pieces []audit.Piece, check bool) ([]audit.Difference, error) {
	for {
		if p.a.group.Leader().Term != p.leader.Term || !p.a.serves() {
			return nil, notMaster()
		}
		results, err := p.round(ctx, pieces, check)
		if why := unknown(pieces, results); err == nil && why != "" && p.only != 0 {
			if p.failures < proveFailures {
				err = errors.New(why)
			} else {
				p.res.Skipped = append(p.res.Skipped, why)
			}
		}
		if err == nil {
			p.failures = 0
			if !check {
				p.count(pieces, results)
			}
			if !check && p.only == 0 {
				p.passedOver(pieces, results)
			}
			return audit.Judge(len(pieces), results, p.a.cfg.Node.ID), nil
		}
		limit := passFailures
		if p.only != 0 {
			limit = proveFailures + 1
		}
		if p.failures++; p.failures >= limit {
			return nil, fmt.Errorf("audit: a round failed %d times: %w", p.failures, err)
		}
		p.a.log.Debug("round of an audit failed", telemetry.KeyError, err)
		if err := rest(ctx, passPause); err != nil {
			return nil, err
		}
	}
}

// unknown names the first piece that a member could not sum up.
func unknown(pieces []audit.Piece, results []audit.Result) string {
	for _, r := range results {
		for i, s := range r.Sums {
			if s.Unknown != "" {
				return fmt.Sprintf("%v on node %d: %s", pieces[i].Table, r.Node, s.Why(pieces[i]))
			}
		}
	}
	return ""
}

// passedOver tells whose accounts and the like could not be compared. Of rows, what is
// unknown is what a statement has changed meanwhile, and the next pass knows it.
func (p *pass) passedOver(pieces []audit.Piece, results []audit.Result) {
	for _, r := range results {
		for i, s := range r.Sums {
			if why := s.Why(pieces[i]); why != "" && pieces[i].Rule != "" {
				why = fmt.Sprintf("accounts, grants and definitions of node %d: %s", r.Node, why)
				if !slices.Contains(p.res.Skipped, why) {
					p.res.Skipped = append(p.res.Skipped, why)
				}
			}
		}
	}
}

// advise tells of a difference that nobody is judged for.
func (p *pass) advise(piece audit.Piece, d *audit.Difference) {
	what := fmt.Sprintf("%v of nodes %v differs from that of nodes %v: %s", piece.Table, d.Wrong, d.Right, d.Place(piece))
	p.res.Advice = append(p.res.Advice, what)
	p.a.log.Warn("grants differ that nobody is judged for", telemetry.KeyReason, what, telemetry.KeyHint, api.AdviceHint)
}

func (p *pass) count(pieces []audit.Piece, results []audit.Result) {
	for _, r := range results {
		p.nodes[r.Node] = true
		if r.Node == p.a.cfg.Node.ID {
			for i, s := range r.Sums {
				if pieces[i].Rule == "" {
					p.res.Rows += s.Rows
				}
			}
		}
	}
}

// round has every able member sum the pieces up at one place of the log.
func (p *pass) round(ctx context.Context, pieces []audit.Piece, check bool) ([]audit.Result, error) {
	a := p.a
	select {
	case a.audits.one <- struct{}{}:
		defer func() { <-a.audits.one }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, armFor+sumLimit)
	defer cancel()
	r := audit.Round{ID: rand.Text(), Pass: p.n, Check: check, Pieces: pieces, Rate: p.rate}
	others, why := a.auditMembers(ctx, r.ID, p.only)
	if len(others) == 0 {
		return nil, fmt.Errorf("compare rows: no other member can take part now: %s", why)
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
		wg.Go(func() { errs[i] = a.call(ctx, id, callAuditResult, auditRequest{ID: r.ID}, &results[i]) })
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

// auditMembers asks the members with data, or only one of them, to expect a round, and
// returns those that do, with a reason of one that does not.
func (a *Agent) auditMembers(ctx context.Context, id string, only paxos.NodeID) (able []paxos.NodeID, why string) {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range a.group.Leader().Members.List {
		if _, age, ok := a.peers.get(m.ID, time.Now()); m.ID == a.cfg.Node.ID || m.Role == paxos.Witness || !ok || age > aliveFor || only != 0 && m.ID != only {
			continue
		}
		wg.Go(func() {
			var ready auditReady
			err := a.call(ctx, m.ID, callAuditPrepare, auditRequest{ID: id, Prove: only != 0}, &ready)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && ready.Able {
				able = append(able, m.ID)
				return
			}
			if why = fmt.Sprintf("node %d: %s", m.ID, ready.Reason); err != nil {
				why = err.Error()
			}
			a.log.Debug("member does not take part in the audit", telemetry.KeyMember, uint64(m.ID), telemetry.KeyReason, why)
		})
	}
	wg.Wait()
	return able, why
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
	p.a.audits.undecided = false
	for _, v := range p.found {
		differ := map[string]bool{}
		e := &events.Audit{Round: p.n, Table: v.Where[0].Table.String(), Range: v.Place, Nodes: v.Right}
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
		p.a.audits.undecided = true
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
func (a *Agent) proposerOf(log relay.Proposer) relay.Proposer {
	return throttled{valved{log, &a.valve}, &a.flow, a.takesIn, a.running}
}
