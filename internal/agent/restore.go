package agent

import (
	"context"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// errantFor is how long a server must be seen to hold too much before its data are
// replaced.
const errantFor = 2 * time.Second

// refreshRestore says what the node needs besides its log.
func (l *loop) refreshRestore() {
	v := &l.view
	if v.Engine.Errant == "" {
		l.errantAt = time.Time{}
	} else if l.errantAt.IsZero() {
		l.errantAt = l.now
	}
	l.judgeAlone()
	r := cluster.Restore{Ready: l.copied, Unproved: l.restored, Proof: l.proofReason}
	switch {
	case l.spoiled() && !l.copied:
		r.Need, r.Reason = cluster.NeedFresh, "the server cannot run on its data: "+v.Engine.Reason
	case l.lost != "":
		r.Need, r.Reason = cluster.NeedCopy, l.lost
	case v.Engine.Errant != "" && !v.Lead.Self && len(v.Peers) > 0 && l.now.Sub(l.errantAt) > errantFor:
		r.Need, r.Reason = cluster.NeedCopy, "the server holds transactions that the log does not"
	case l.lack > l.cons.Chosen()+1 && !v.Lead.Self:
		r.Need, r.Reason = cluster.NeedPlace, "the other members have trimmed what this node's log lacks"
	case l.copied:
		r.Reason = v.Restore.Reason
	}
	if r.Need != v.Restore.Need {
		l.log.Info("restore", telemetry.KeyState, needWords[r.Need], telemetry.KeyReason, r.Reason)
	}
	v.Restore = r
}

var needWords = map[cluster.Need]string{
	cluster.NeedNothing: "not needed", cluster.NeedPlace: "the log begins anew", cluster.NeedCopy: "another member's data are needed",
	cluster.NeedFresh: "new data are needed",
}

func (l *loop) fetchCopy(ctx context.Context) error {
	at, err := l.restorer.FetchCopy(ctx)
	if err != nil {
		return err
	}
	l.post(func() { l.copied, l.judge = true, max(l.judge, at) })
	return nil
}

func (l *loop) placeLog(ctx context.Context) error {
	placed, err := l.restorer.PlaceLog(ctx)
	if err != nil {
		return err
	}
	l.post(func() {
		if !placed {
			l.lost = "the server lacks what no member's log has any more"
			return
		}
		// The consensus has begun anew and must be told again.
		l.view.Candidacy = cluster.Candidacy{}
		l.cons.SetCandidacy(false, 0)
	})
	return nil
}

// dataReplaced notes that the server has other data.
func (l *loop) dataReplaced() {
	l.engineGone()
	l.fresh, l.preferred, l.followed, l.proofReason = !l.copied, false, false, ""
	l.lost, l.copied, l.restored, l.early, l.errantAt = "", false, true, false, time.Time{}
	l.data++
	l.faults, l.differs, l.replicaFail, l.wrong = 0, false, 0, ""
	l.view.Restore = cluster.Restore{}
	e := &l.view.Engine
	e.State, e.Crashes, e.Reason = cluster.EngineStopped, 0, ""
	l.applied, l.goal, l.seen = applied{}, 0, observation{}
}

// judgeCopy tells when new data can be compared with another member's: the server runs
// on them, has followed the log to where it ended when that was first asked, is near its
// end (nearLag), and holds nothing else. Under load it always lacks something.
func (l *loop) judgeCopy(through paxos.Instance) {
	e := &l.view.Engine
	if !l.restored || l.followed || e.Errant != "" || l.view.Restore.Need != cluster.NeedNothing || e.Replica != cluster.ReplicaRunning {
		return
	}
	if l.early && !l.caughtUp {
		return
	}
	if l.goal == 0 {
		l.goal = max(l.judge, through)
	}
	if l.applied.through < l.goal || l.applied.lag(l.seenAt) > nearLag {
		return
	}
	l.followed = true
	l.log.Info("new data have followed the log", telemetry.KeyInstance, uint64(through))
}

// lacks takes in which instance the other members' logs begin with, if this node
// needs older ones; lostBy, why the server cannot go on by the log.
func (l *loop) lacks(oldest paxos.Instance) { l.lack = oldest }

func (l *loop) lostBy(reason string) {
	if l.view.Engine.Replica != cluster.ReplicaOff {
		l.lost = reason
	}
}
