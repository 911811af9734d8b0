package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Target is what loads are put on: a cluster, or a plain server as the control.
type Target interface {
	// Ports are those of each node.
	Ports() []Ports
	Open(addr, database string) (*sql.DB, error)
	// Exec runs statements through some read-write port.
	Exec(ctx context.Context, statements ...string) error
}

// Ports are a node's client ports.
type Ports struct {
	Node   int
	RW, RO string
}

// Ports are those of the nodes that have a server.
func (c *Cluster) Ports() []Ports {
	var ps []Ports
	for _, n := range c.withData() {
		ps = append(ps, Ports{n.ID, n.RW, n.RO})
	}
	return ps
}

// Site is what a load needs.
type Site struct {
	Target Target
	Rec    *Recorder
	Dir    string // for pictures
	Pace   *pacer // of all clients together; nil: none
	// StaleReads says that old answers are no broken promise: some fault does not keep what
	// the cluster assumes.
	StaleReads bool
	Large      int64 // size of the largest transactions, bytes; 0: DefaultLarge
}

// Load writes and reads until it is stopped, and then judges what it was told.
type Load interface {
	// Stop ends the clients and waits for them.
	Stop()
	// Judge holds what clients were told against what is there. The load must be
	// stopped and the cluster well. The error says that it could not be judged.
	Judge(ctx context.Context) (Finding, error)
}

// Finding is the judgement over one load.
type Finding struct {
	Load  string   `json:"load"`
	Facts string   `json:"facts"`           // what was judged, in numbers
	Acked int      `json:"acknowledged"`    // operations that were answered OK
	Wrong []string `json:"wrong,omitempty"` // each a broken promise
	Noted []string `json:"noted,omitempty"` // what MySQL allows
}

// LoadKind is a load that can be asked for by name.
type LoadKind struct {
	Name  string
	About string
	// Start starts the clients; they go on until Stop or until the context ends.
	Start func(ctx context.Context, s Site) (Load, error)
}

// Loads are all loads, in the order in which they are started.
var Loads = []LoadKind{
	{"set", "rows inserted one by one: what was acknowledged is there, what was refused is not", startSet},
	{"bank", "transfers: the total never changes, on any port", startBank},
	{"lists", "list-append transactions at REPEATABLE READ, judged by a cycle checker", startListsAt(repeatableRead)},
	{"serializable", "the same at SERIALIZABLE", startListsAt(serializable)},
	{"registers", "single rows read and written: judged to be linearizable", startRegisters},
	{"xa", "XA transactions, prepared by one session and decided by another, when the master may be another: whole or not at all", startXA},
	{"large", "transactions of tens of megabytes: whole or not at all, on any port", startLarge},
	{"ddl", "tables, routines, views, triggers, accounts and grants made, changed and dropped", startDDL},
}

// FindLoads returns the loads of these names; all for none.
func FindLoads(names []string) ([]LoadKind, error) {
	if len(names) == 0 {
		return Loads, nil
	}
	var out []LoadKind
	for _, n := range names {
		at := len(out)
		for _, l := range Loads {
			if l.Name == n {
				out = append(out, l)
			}
		}
		if len(out) == at {
			return nil, fmt.Errorf("find workload %q: there is none of that name", n)
		}
	}
	return out, nil
}

// startLoads starts loads of these kinds. After an error none runs.
func startLoads(ctx context.Context, kinds []LoadKind, s Site) ([]Load, error) {
	var loads []Load
	for _, k := range kinds {
		l, err := k.Start(ctx, s)
		if err != nil {
			stopLoads(loads)
			return nil, fmt.Errorf("start workload %s: %w", k.Name, err)
		}
		loads = append(loads, l)
	}
	return loads, nil
}

// stopLoads ends the clients of all loads and waits for them. It may be called again.
func stopLoads(loads []Load) {
	for _, l := range loads {
		l.Stop()
	}
}

// prepare runs statements, each again and again until it succeeds or startLimit has
// passed. They must bear being repeated.
func prepare(ctx context.Context, t Target, statements ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, q := range statements {
		if err := Eventually(ctx, func() error { return t.Exec(ctx, q) }); err != nil {
			return err
		}
	}
	return nil
}

// crew are the clients of one load.
type crew struct {
	cancel context.CancelFunc
	ctx    context.Context
	wg     sync.WaitGroup
}

func newCrew(ctx context.Context) *crew {
	ctx, cancel := context.WithCancel(ctx)
	return &crew{cancel: cancel, ctx: ctx}
}

// Stop ends the clients and waits for them.
func (c *crew) Stop() {
	c.cancel()
	c.wg.Wait()
}

// client starts a client of a port: it keeps a connection until a step fails, and waits
// up to pause between steps.
func (c *crew) client(s Site, addr, database string, pause time.Duration, one func(*sql.Conn) error) error {
	db, err := s.Target.Open(addr, database)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	c.wg.Go(func() {
		defer db.Close()
		for c.ctx.Err() == nil {
			begin := s.Rec.Now()
			conn, err := connect(c.ctx, db)
			if err != nil {
				s.Rec.NoConnection(addr, begin, err)
			}
			for err == nil && c.ctx.Err() == nil {
				wait(c.ctx, rand.N(pause))
				if s.Pace.wait(c.ctx); c.ctx.Err() == nil {
					err = one(conn)
				}
			}
			if conn != nil {
				_ = conn.Raw(func(any) error { return errBad })
				_ = conn.Close()
			}
			wait(c.ctx, retryPause)
			s.Pace.wait(c.ctx)
		}
	})
	return nil
}

// connect returns a connection that has answered.
func connect(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return db.Conn(ctx)
}

// transaction carries out statements between START TRANSACTION and COMMIT. What fails
// before the COMMIT is sent is certain not to be there. An error means that the
// connection is no good any more.
func transaction(conn *sql.Conn, do func(ctx context.Context) error) (Outcome, error) {
	return transactionWithin(writeLimit, conn, do)
}

// transactionWithin is transaction with a limit of its own.
func transactionWithin(limit time.Duration, conn *sql.Conn, do func(ctx context.Context) error) (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := conn.ExecContext(ctx, "START TRANSACTION"); err != nil {
		return Refused, err
	}
	if err := do(ctx); err != nil {
		if _, undo := conn.ExecContext(ctx, "ROLLBACK"); undo != nil {
			return Refused, errors.Join(err, undo)
		}
		return Refused, nil
	}
	_, err := conn.ExecContext(ctx, "COMMIT")
	return classify(err), err
}
