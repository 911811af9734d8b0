package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/semisync"
	"github.com/phxsql/phxsql/paxos"
)

// The server ids with which this program itself takes part in replication. Node
// ids are small, so no server has one of them.
const (
	sourceServerID = 1<<32 - 2
	tailServerID   = 1<<32 - 3
)

// sourceUser is the one account that the local server replicates with.
const sourceUser = "phxsql_source"

// relays are the parts that carry transactions between the server and the log.
type relays struct {
	journal  journalOf
	source   *relay.Source
	sourceLn net.Listener
	tail     *tailOf
	settings settings
}

// journalOf makes a relay.Journal what the loop wants of it.
type journalOf struct{ *relay.Journal }

// Position reads the instance first: the epoch may be newer, never older.
func (j journalOf) Position() (paxos.Instance, uint64, paxos.NodeID) {
	at := j.Through()
	e := j.Epoch()
	return at, e.Number, paxos.NodeID(e.Node)
}

func (j journalOf) Wait(ctx context.Context, through paxos.Instance) error {
	return j.WaitThrough(ctx, through)
}

// buildRelays makes the journal, the source for the local server, and the tail.
// The source listens on a port of the loopback that nobody else needs to know.
func (a *Agent) buildRelays(ctx context.Context) error {
	a.journal = journalOf{relay.NewJournal(a.group, a.base, a.component("journal"))}
	a.db.dropped = a.journal.Dropped
	a.settle()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the local server: %w", err)
	}
	a.sourceLn = ln
	password := rand.Text()
	a.db.source = mysqld.Source{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, User: sourceUser, Password: password}
	a.source = relay.NewSource(a.group, a.journal.Journal, relay.SourceOptions{
		User: sourceUser, Password: password,
		ServerID: sourceServerID, ServerUUID: a.deriveUUID("log"), ServerVersion: a.install.Version.Release(),
		CaughtUp: a.caughtUp, OnRefuse: a.sourceRefused, HoldForAudit: a.holdForAudit, Logger: a.component("source"),
	})
	a.tail = &tailOf{ctx: ctx, make: a.newTail}
	return nil
}

// deriveUUID returns a UUID that is the same on every node of the cluster.
func (a *Agent) deriveUUID(use string) gtid.UUID {
	var u gtid.UUID
	copy(u[:], a.secret.Derive("uuid of "+use))
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // version 8, RFC 9562
	return u
}

// caughtUp returns an instance that holds, or follows, everything that was chosen
// when this node started, as soon as one is known: that of a leader which knows
// all of it.
func (a *Agent) caughtUp() (paxos.Instance, bool) {
	v := a.group.Leader()
	if v.Leader == a.cfg.Node.ID {
		return a.group.Chosen(), v.Ready
	}
	an, age, ok := a.peers.get(v.Leader, time.Now())
	return max(an.Member.Log.Chosen, a.copying.judgeFrom()), ok && age < aliveFor && an.Member.Master
}

func (a *Agent) newTail(epoch uint64) *relay.Tail {
	user, password := a.db.Agent()
	return relay.NewTail(a.proposerOf(measured{a.group, &a.commits}), a.journal, relay.TailOptions{
		Socket: a.db.Socket(), User: user, Password: password, ReplicaID: tailServerID, ReplicaUUID: a.deriveUUID("tail"),
		Epoch: epoch, Node: uint64(a.cfg.Node.ID), Logger: a.component("tail"),
	})
}

// startRelays follows the log and serves the local server until ctx ends.
func (a *Agent) startRelays(ctx context.Context) {
	a.wg.Go(func() {
		if err := a.journal.Follow(ctx); err != nil && ctx.Err() == nil {
			a.fatal(fmt.Errorf("the log cannot be followed: %w", err))
		}
	})
	a.wg.Go(func() { a.followSettings(ctx) })
	a.wg.Go(func() {
		if err := a.source.Serve(ctx, a.sourceLn); err != nil && ctx.Err() == nil {
			a.fatal(err)
		}
	})
}

func (a *Agent) closeRelays() {
	if a.sourceLn != nil {
		_ = a.sourceLn.Close()
	}
	if a.tail != nil {
		_ = a.tail.Detach(context.Background())
	}
}

// errDetached ends a tail that is not wanted any more.
var errDetached = errors.New("detached")

// tailOf runs at most one relay.Tail at a time.
type tailOf struct {
	ctx  context.Context // of the whole node
	make func(epoch uint64) *relay.Tail

	mu   sync.Mutex              // held by Attach and Detach
	end  context.CancelCauseFunc // of the present tail; nil when there is none
	done chan struct{}

	abandon atomic.Pointer[context.CancelCauseFunc]
	newest  atomic.Pointer[relay.Tail]
}

// acked is the last position that the newest tail has acknowledged; zero if it is not
// known.
func (t *tailOf) acked() semisync.Position {
	if tail := t.newest.Load(); tail != nil {
		return tail.Stats().Acked
	}
	return semisync.Position{}
}

// Abandon makes the present tail end.
func (t *tailOf) Abandon() {
	if end := t.abandon.Load(); end != nil {
		(*end)(errDetached)
	}
}

// Attach runs a tail of an epoch and returns when the server treats it as its
// semi-sync replica. Ended is called if it ends by itself after that.
func (t *tailOf) Attach(ctx context.Context, epoch uint64, ended func(error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end != nil {
		return errors.New("attach tail: there is one already")
	}
	tail := t.make(epoch)
	t.newest.Store(tail)
	run, end := context.WithCancelCause(t.ctx)
	done := make(chan struct{})
	var failure error
	go func() {
		defer close(done)
		failure = tail.Run(run)
	}()
	wait, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-done:
			stop(errDetached)
		case <-wait.Done():
		}
	}()
	if err := tail.WaitAttached(wait); err != nil {
		end(errDetached)
		<-done
		return fmt.Errorf("attach tail: %w", failure)
	}
	t.end, t.done = end, done
	t.abandon.Store(&end)
	go func() {
		<-done
		if context.Cause(run) != errDetached { //nolint:errorlint // the very value
			ended(failure)
		}
	}()
	return nil
}

// Detach ends the tail, if there is one, and waits for its end.
func (t *tailOf) Detach(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end == nil {
		return nil
	}
	t.end(errDetached)
	<-t.done
	t.end = nil
	return nil
}
