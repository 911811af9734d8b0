package agent

import (
	"context"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// consensus is what the loop needs of the replicated log.
type consensus interface {
	Propose(data []byte, done func(i paxos.Instance, err error)) error
	Leadership() paxos.Leadership
	LeaseValid() bool
	Changed() <-chan struct{}
	Transfer(to paxos.NodeID) error
	SetCandidacy(able bool, delay time.Duration)
	Members() paxos.Members
	Chosen() paxos.Instance
}

// journal is what the loop needs of the log's effective content.
type journal interface {
	// Position is the instance through which the journal has read, with the
	// newest epoch there and the set of all transactions that count.
	Position() (paxos.Instance, uint64, paxos.NodeID)
	Executed() *gtid.Set
	// Wait returns when the journal has read through an instance.
	Wait(ctx context.Context, through paxos.Instance) error
}

// database is the local server. Its methods return when they are done; Kill
// returns at once.
type database interface {
	ServerUUID() gtid.UUID
	// Init makes the data; unproved says that others will fill them, who are to be
	// compared with.
	Init(ctx context.Context, unproved bool) error
	// Start returns when the server answers. exited is called once when the
	// process has ended, for whatever reason, unless Start fails.
	Start(ctx context.Context, exited func(reason string)) error
	Stop(ctx context.Context) error
	// Kill returns at once; report is called if it does not work.
	Kill(report func(error))
	// Crashed tells how long another start is refused.
	Crashed() time.Duration
	StartReplica(ctx context.Context) error
	StopReplica(ctx context.Context) error
	// OwnPrepared makes what replication has prepared by XA the server's own. It
	// may start a read-only server anew; exited is called only if it stays away.
	OwnPrepared(ctx context.Context) error
	MakeWritable(ctx context.Context) error
	MakeReadOnly(ctx context.Context) error
	EnableEvents(ctx context.Context) error
	DisableEvents(ctx context.Context) error
	Observe(ctx context.Context) (observation, error)
	// WaitExecuted returns when the server has executed the set.
	WaitExecuted(ctx context.Context, set *gtid.Set) error
}

// restorer brings a node back that its log cannot bring back.
type restorer interface {
	// FetchCopy lays another member's data beside the own. It returns an instance
	// that follows everything they hold.
	FetchCopy(ctx context.Context) (paxos.Instance, error)
	// AdoptCopy puts the copy in the place of the data; keep says that these are worth
	// a look.
	AdoptCopy(ctx context.Context, keep bool) error
	// SetAside puts new data in the place of those that the server cannot run on.
	SetAside(ctx context.Context) error
	// PlaceLog makes the log begin behind what the server holds. It reports false
	// when no log goes on from there: the server needs a copy.
	PlaceLog(ctx context.Context) (bool, error)
	// Restored is told when new data are good.
	Restored()
}

// tail is the semi-sync replica of the local server. Attach returns when it is
// attached; ended is called once when it ends by itself.
type tail interface {
	Attach(ctx context.Context, epoch uint64, ended func(error)) error
	Detach(ctx context.Context) error
	// Abandon makes the tail end and returns at once; Detach is still due.
	Abandon()
}

// gate is the client ports.
type gate interface {
	Open()
	Close(reason string)
	Drain()
	// Drained says that no transaction of a client is open any more.
	Drained() bool
	OpenReads()
	CloseReads(reason string)
	RouteTo(r cluster.Route)
}
