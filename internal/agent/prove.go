package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/audit"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/events"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// New data, be they a copy, made from the log, or those of a new member, are unproved
// until all rows were compared with the master's. Until then nobody reads them, the node
// does not vote if it is new, leads only when no other member with data could, and gives
// no copies; what the data have replaced stays.
//
// The node asks the master for one round of the audit after the other and says where to
// go on: so it knows how far it is, another master goes on where the last one was, and
// rounds of several nodes alternate. It is the master's rows that count, not those of a
// majority: a copy is no second witness of what it was copied from. When they differ, an
// ordinary audit follows at once, without the new data, which finds a damaged donor, or
// a damaged master.

// callProve asks the master: proveRequest -> proveAnswer.
const callProve = "prove"

const (
	proveEvery = 200 * time.Millisecond
	// proveLimit bounds a round, with the second look at what differs.
	proveLimit = 2 * (armFor + sumLimit)
	// proveFailures is how often in a row the master tries a round of one request.
	proveFailures = 3
	// proveBackoff is how long after a round that failed the next one is asked for.
	proveBackoff = 2 * time.Second
	// After a switchover that failed the next one to the same member is tried after
	// giveWayAgain, then after twice as long each time, up to giveWayMost: clients wait
	// while one is tried.
	giveWayAgain = 10 * time.Second
	giveWayMost  = 2 * time.Minute
	// After so many copies in a row that differ, each further one waits: for
	// refusedPause first, then twice as long each time, up to refusedMost.
	refusedFree  = 2
	refusedPause = time.Minute
	refusedMost  = time.Hour
)

type proveRequest struct {
	From *audit.Cursor `json:"from,omitempty"` // nil: from the beginning
}

type proveAnswer struct {
	Next  *audit.Cursor `json:"next,omitempty"` // nil: all is compared
	Rows  uint64        `json:"rows"`           // that this round compared
	About int64         `json:"about"`          // rows there are, to the first request
	// Differs is the first place where the rows are not the master's.
	Differs string   `json:"differs,omitempty"`
	Skipped []string `json:"skipped,omitempty"` // tables that cannot be compared, with reasons
}

// onProve compares the next rows of a member's new data with the own ones.
func (a *Agent) onProve(ctx context.Context, from paxos.NodeID, req proveRequest) (proveAnswer, error) {
	var ans proveAnswer
	switch {
	case !a.serves():
		return ans, notMaster()
	case from == a.cfg.Node.ID:
		return ans, api.BadRequest("prove_self", "a member's data are not compared with themselves", "")
	case !a.history.readable():
		return ans, errOldMembers()
	}
	ctx, cancel := context.WithTimeout(ctx, proveLimit)
	defer cancel()
	p := a.newPass(0, a.settled().Audit.ProveRate)
	p.only = from
	session, end, err := p.begin(ctx)
	if err != nil {
		return ans, err
	}
	defer end()
	if req.From == nil {
		p.ruled = slices.DeleteFunc(p.ruled, audit.Piece.Advisory)
		if ans.About, err = audit.Estimate(ctx, session); err != nil {
			return ans, err
		}
	} else {
		p.goOn(*req.From)
	}
	pieces, err := p.cut(ctx, session)
	if err == nil {
		err = p.compare(ctx, pieces)
	}
	if err != nil {
		return ans, err
	}
	ans.Rows, ans.Skipped = p.res.Rows, p.res.Skipped
	if v := p.found[from]; v != nil {
		ans.Differs = v.Where[0].Table.String() + ", " + v.Place
		a.audits.soon.Store(true)
		return ans, nil
	}
	if p.next < len(p.tables) {
		p.from.Table = p.tables[p.next]
		ans.Next = &p.from
	}
	return ans, nil
}

// goOn begins a pass at a place. A table that is gone meanwhile is passed over.
func (p *pass) goOn(from audit.Cursor) {
	next, found := slices.BinarySearchFunc(p.tables, from.Table, audit.Table.Compare)
	p.ruled, p.next, p.from = nil, next, audit.Cursor{} // accounts come first
	if found {
		p.from = from
	}
}

// proof is how far the comparison of this node's new data has come. It is safe for
// concurrent use.
type proof struct {
	mu      sync.Mutex
	data    int // which data: see loop.data
	from    *audit.Cursor
	began   time.Time // zero: not yet
	rows    uint64
	about   int64
	skipped []string

	refused  int       // copies in a row that differed
	notUntil time.Time // when the next one may be fetched
}

// of begins anew for other data, and returns where to go on.
func (p *proof) of(data int) *audit.Cursor {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() || p.data != data {
		p.data, p.from, p.began, p.rows, p.about, p.skipped = data, nil, time.Now(), 0, 0, nil
	}
	return p.from
}

// note takes in what a round said.
func (p *proof) note(ans proveAnswer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from, p.rows = ans.Next, p.rows+ans.Rows
	p.skipped = append(p.skipped, ans.Skipped...)
	p.about = max(p.about, ans.About, int64(p.rows))
}

// refuse counts a copy that differed, and says when the next one may be fetched.
func (p *proof) refuse(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = time.Time{}
	if p.refused++; p.refused > refusedFree {
		p.notUntil = now.Add(min(refusedMost, refusedPause<<min(p.refused-refusedFree-1, 10)))
	}
}

// wait returns an error while no further copy may be fetched.
func (p *proof) wait(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := p.notUntil.Sub(now); left > 0 {
		return hinted{fmt.Errorf("%d copies in a row held other rows than the master, the next one waits for %v", p.refused, left.Round(time.Second)),
			"look at the memory and the disks of this machine; 'phxsql why' names the tables, 'phxsql audit now' tells whether the members that serve agree"}
	}
	return nil
}

// done ends it, and says what was compared.
func (p *proof) done() (rows uint64, skipped []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began, p.refused, p.notUntil = time.Time{}, 0, time.Time{}
	return p.rows, p.skipped
}

// status puts the progress into that of the copy for people; nil when there is none.
func (p *proof) status(c *api.Copy) *api.Copy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		return c
	}
	s := api.Copy{}
	if c != nil {
		s = *c
	}
	s.Phase, s.Rows, s.RowsTotal, s.Rate, s.Remaining = copyProving, p.rows, p.about, 0, 0
	if took := time.Since(p.began); p.rows > 0 && p.about > int64(p.rows) {
		s.Remaining = api.Seconds(took.Seconds() / float64(p.rows) * float64(p.about-int64(p.rows)) * float64(time.Second))
	}
	return &s
}

// pursueProof has new data compared until ctx ends.
func (a *Agent) pursueProof(ctx context.Context) {
	var way manners
	for pause := proveEvery; ; {
		if rest(ctx, pause) != nil {
			return
		}
		pause = proveEvery
		s := a.loop.last.Load()
		if s == nil || !s.unproved || s.state() != api.StateMaster {
			way = manners{}
		}
		switch {
		case s == nil || !s.unproved:
		case s.state() == api.StateMaster:
			a.giveWay(ctx, s, &way)
		case s.followed && s.view.Restore.Need == cluster.NeedNothing && !s.view.Restore.Ready:
			more, err := a.proveStep(ctx, s.data)
			a.proofWaits(err)
			switch {
			case err != nil:
				pause = proveBackoff
			case more:
				pause = 0
			}
		}
	}
}

// manners say when a master with unproved data tries again to give way: not at once to a
// member that it could not give way to, and at once to another one. They begin anew when it
// is no master any more, or its data are proved.
type manners struct {
	to    paxos.NodeID
	tries int
	next  time.Time
}

func (m *manners) due(to paxos.NodeID, now time.Time) bool {
	if to != m.to {
		*m = manners{to: to}
	}
	return !now.Before(m.next)
}

func (m *manners) failed(now time.Time) {
	m.next = now.Add(min(giveWayMost, giveWayAgain<<min(m.tries, 10)))
	m.tries++
}

// giveWay lets a member take over whose data are proved, if there is one: then this
// node's can be compared with it.
func (a *Agent) giveWay(ctx context.Context, s *snapshot, m *manners) {
	to := s.view.Proved()
	if to == 0 || s.view.Switch != nil || !m.due(to, time.Now()) {
		return
	}
	if err := a.loop.requestSwitchover(ctx, to, switchLimit); err != nil {
		m.failed(time.Now())
		a.log.Info("mastership not given away", telemetry.KeyTo, uint64(to), telemetry.KeyError, err, telemetry.KeyDuration, time.Until(m.next))
	}
}

// proofWaits tells why new data are not being compared; nil: they are.
func (a *Agent) proofWaits(err error) {
	reason := ""
	if err != nil {
		a.log.Debug("new data not compared", telemetry.KeyError, err)
		reason = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	a.loop.post(func() { a.loop.proofReason = reason })
}

// proveStep has the next rows compared, and reports whether there are more.
func (a *Agent) proveStep(ctx context.Context, data int) (more bool, err error) {
	master := a.master()
	if master == 0 {
		return false, errors.New("no master serves")
	}
	ctx, cancel := context.WithTimeout(ctx, proveLimit)
	defer cancel()
	var ans proveAnswer
	if err := a.call(ctx, master, callProve, proveRequest{a.proof.of(data)}, &ans); err != nil {
		return false, err
	}
	switch {
	case ans.Differs != "":
		a.proof.refuse(time.Now())
		a.donors.refused(a.copying.from(), time.Now())
		a.copying.set(copyNone, offer{})
		a.loop.post(func() { a.loop.refuse(data, ans.Differs, master) })
		return false, nil
	case ans.Next != nil:
		a.proof.note(ans)
		return true, nil
	}
	a.proof.note(ans)
	rows, skipped := a.proof.done()
	how := fmt.Sprintf("its %d rows are those of the master, node %d", rows, master)
	if len(skipped) > 0 {
		how += fmt.Sprintf("; %d tables cannot be compared: %s", len(skipped), skipped[0])
	}
	a.loop.post(func() { a.loop.proved(data, how) })
	return false, nil
}

// proved takes in that the data are good.
func (l *loop) proved(data int, how string) {
	if !l.restored || data != l.data {
		return
	}
	l.restored, l.followed, l.proofReason = false, false, ""
	l.log.Info("node is restored", telemetry.KeyReason, how)
	l.tell(events.Event{Kind: events.Rebuilt, Reason: "the server has new data and follows the log; " + how})
	go l.restorer.Restored()
}

// refuse takes in that the data are not those of the master: they have to be replaced.
func (l *loop) refuse(data int, where string, master paxos.NodeID) {
	if !l.restored || data != l.data {
		return
	}
	reason := fmt.Sprintf("the new data of this node are not those of the master, node %d: %s", master, where)
	l.log.Error("new data refused", telemetry.KeyReason, reason, telemetry.KeyHint, "another copy is fetched, of another member if there is one; these are moved aside")
	l.tell(events.Event{Kind: events.Diverged, Cause: events.CauseDiverged, Reason: reason})
	l.differs, l.lost, l.followed = true, reason, false
}

// doubt takes in that the data are those of a node on its way into a cluster.
func (l *loop) doubt() {
	if !l.restored {
		l.restored, l.early, l.fresh, l.followed, l.goal = true, true, true, false, 0
		l.data++
	}
}

// judgeAlone proves data that there is nothing to compare with: no other member has any.
func (l *loop) judgeAlone() {
	if !l.restored || l.view.Gate != cluster.GateOpen {
		return
	}
	for _, m := range l.cons.Members().List {
		if m.ID != l.self && m.Role != paxos.Witness {
			return
		}
	}
	l.proved(l.data, "no other member has any to compare them with")
}
