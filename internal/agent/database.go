package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/relay"
)

// localServer makes a mysqld.Server what the loop wants of a database.
type localServer struct {
	*mysqld.Server
	source mysqld.Source // the node's own log, served as a binlog; role is held for it
	uuid   atomic.Pointer[gtid.UUID]

	life  atomic.Pointer[life] // of the server that runs; nil while nobody is to be told of its end
	owned atomic.Bool          // what is prepared in it is its own
	// ended says that what its routines' drops have left undone is done; see endDropped.
	ended   atomic.Bool
	dropped droppedRoutines // set before the server first starts

	role sync.Mutex // held while the server's role changes, and while its accounts do
	// renewal is held while the receiver stands still for a new password, so that
	// nobody takes that for an end of replication.
	renewal sync.Mutex
	// holdup belongs to Observe, of which one runs at a time.
	holdup holdup
}

// life is the time of one server process.
type life struct {
	exited func(reason string)
}

// ServerUUID is the identity under which the server writes; zero before it first ran.
func (d *localServer) ServerUUID() gtid.UUID {
	if u := d.uuid.Load(); u != nil {
		return *u
	}
	return gtid.UUID{}
}

// Crashed tells how long the supervisor refuses another start.
func (d *localServer) Crashed() time.Duration { return d.Crashes().Wait(time.Now()) }

func (d *localServer) Init(ctx context.Context, unproved bool) error {
	return d.Initialize(ctx, unproved)
}

func (d *localServer) Start(ctx context.Context, exited func(reason string)) error {
	if err := d.Server.Start(ctx); err != nil {
		return err
	}
	text, err := d.Server.ServerUUID(ctx)
	if err == nil {
		var u gtid.UUID
		if u, err = gtid.ParseUUID(text); err == nil {
			d.uuid.Store(&u)
		}
	}
	if err != nil {
		return errors.Join(err, d.Server.Kill())
	}
	d.owned.Store(false)
	d.ended.Store(false)
	d.watch(&life{exited})
	return nil
}

// watch tells of the end of the server's process, but not of one that OwnPrepared
// has ended.
func (d *localServer) watch(l *life) {
	d.life.Store(l)
	ended := d.Exited()
	go func() {
		<-ended
		if d.life.CompareAndSwap(l, nil) {
			l.exited(d.lastReason())
		}
	}()
}

func (d *localServer) lastReason() string {
	e, _ := d.LastExit()
	if c := d.Crashes(); !e.Wanted && c.Reason != "" {
		return c.Reason
	}
	return e.Reason
}

// OwnPrepared makes the XA transactions that replication has prepared the server's
// own, once, before it becomes the master. It may start the server anew for that. What
// routines' drops have left undone is done before.
func (d *localServer) OwnPrepared(ctx context.Context) error {
	d.role.Lock()
	err := d.endDropped(ctx)
	d.role.Unlock()
	if err != nil || d.owned.Load() {
		return err
	}
	l := d.life.Swap(nil)
	if l == nil {
		return mysqld.ErrNotRunning
	}
	_, err = d.Server.OwnPrepared(ctx)
	if d.PID() == 0 {
		l.exited(d.lastReason())
		return errors.Join(err, mysqld.ErrNotRunning)
	}
	d.owned.Store(err == nil)
	d.watch(&life{l.exited})
	return err
}

// restarting reports that OwnPrepared is under way.
func (d *localServer) restarting() bool { return d.life.Load() == nil }

func (d *localServer) Stop(ctx context.Context) error { return d.Shutdown(ctx) }

// Kill returns at once; exited tells the end. A process that even SIGKILL does
// not end hangs in its disk: exited is then not called.
func (d *localServer) Kill(report func(error)) {
	go func() {
		if err := d.Server.Kill(); err != nil {
			report(err)
		}
	}()
}

func (d *localServer) StartReplica(ctx context.Context) error {
	d.role.Lock()
	defer d.role.Unlock()
	// A log that does not know of everything yet is no reason to wait: after an outage of
	// all members it knows only when one of them leads, and for that it must follow first.
	if err := d.endDropped(ctx); err != nil && !errors.Is(err, relay.ErrLogShort) {
		return err
	}
	d.owned.Store(false)
	return d.Server.StartReplica(ctx, d.source)
}

// StopReplica is the first step on every way from a replica to a master: it waits until
// no account is being changed. See accounts.
func (d *localServer) StopReplica(ctx context.Context) error {
	d.role.Lock()
	defer d.role.Unlock()
	return d.Server.StopReplica(ctx, false)
}

func (d *localServer) MakeWritable(ctx context.Context) error {
	d.role.Lock()
	defer d.role.Unlock()
	return d.SetReadOnly(ctx, false)
}

// MakeReadOnly ends what clients still run, because super_read_only waits for it.
// Their sockets are cut already; a session that waits in its commit goes on.
func (d *localServer) MakeReadOnly(ctx context.Context) error {
	d.role.Lock()
	defer d.role.Unlock()
	if _, err := d.KillClients(ctx); err != nil {
		return err
	}
	return d.SetReadOnly(ctx, true)
}

// renewSource has the server replicate with another password; role is held.
func (d *localServer) renewSource(ctx context.Context, password string) error {
	d.renewal.Lock()
	defer d.renewal.Unlock()
	d.source.Password = password
	if d.PID() == 0 {
		return nil
	}
	return d.SetSourcePassword(ctx, password)
}

// executed is the set of transactions that the server holds.
func (d *localServer) executed(ctx context.Context) (*gtid.Set, error) {
	text, err := d.GTIDExecuted(ctx)
	if err != nil {
		return nil, err
	}
	set, err := gtid.ParseSet(text)
	if err != nil {
		return nil, fmt.Errorf("read gtid_executed: %w", err)
	}
	return set, nil
}

// Observe asks the server how far it is.
func (d *localServer) Observe(ctx context.Context) (observation, error) {
	var o observation
	var err error
	if o.Executed, err = d.executed(ctx); err != nil {
		return o, err
	}
	if o.ReadOnly, err = d.ReadOnly(ctx); err != nil {
		return o, err
	}
	d.renewal.Lock()
	st, err := d.ReplicaStatus(ctx)
	d.renewal.Unlock()
	if err != nil {
		return o, err
	}
	o.Lag, o.ReplicaErrno = max(0, st.Lag), st.SQLErrno
	switch broken := st.Err(); {
	case !st.Configured:
		o.Replica = cluster.ReplicaOff
	case broken != nil:
		o.Replica, o.ReplicaError = cluster.ReplicaBroken, broken.Error()
	default:
		o.Replica = cluster.ReplicaRunning
		return o, errors.Join(d.endHoldup(ctx, o.Executed), d.endDroppedLater(ctx))
	}
	return o, nil
}

func (d *localServer) WaitExecuted(ctx context.Context, set *gtid.Set) error {
	if set.Empty() {
		return nil
	}
	return d.WaitForExecuted(ctx, set.String())
}
