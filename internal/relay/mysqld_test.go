package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// rig is a master, its tail and the log of a cluster of one.
type rig struct {
	t       *testing.T
	ctx     context.Context // of the whole test
	log     *memLog
	journal *Journal
	master  *server
	tail    *Tail
	ended   chan error
	stop    context.CancelFunc
	killed  int // the newest session of a dump that was killed
}

const testEpoch, testNode = 7, 3

// The servers are started once; the parts run in this order on one log.
func TestWithServers(t *testing.T) {
	r := newRig(t)
	refused := make(chan error, 1)
	addr, source := r.serve(func(err error) {
		select {
		case refused <- err:
		default:
		}
	})
	follower := newServer(t, 102, "--replica-max-allowed-packet=1G")
	follower.replicate(addr)
	plain := newServer(t, 103)
	r.schema()
	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"TailReconnects", func(t *testing.T) { tailReconnects(t, r) }},
		{"LargeTransactions", func(t *testing.T) { largeTransactions(t, r, follower) }},
		{"DroppedRoutines", func(t *testing.T) { droppedRoutines(t, r) }},
		{"CharactersOfClients", func(t *testing.T) { charactersOfClients(t, r, follower) }},
		{"EveryKindOfTransaction", func(t *testing.T) { everyKindOfTransaction(t, r, follower) }},
		{"FollowerResumes", func(t *testing.T) { followerResumes(t, r, follower, source) }},
		{"DivergedFollower", func(t *testing.T) { divergedFollower(t, r, plain, addr, refused) }},
		{"UnfitMaster", func(t *testing.T) { unfitMaster(t, r, plain) }},
		{"TailNamesItsEnd", func(t *testing.T) { tailNamesItsEnd(t, r) }},
		{"DeposedTail", func(t *testing.T) { deposedTail(t, r) }},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			old := r.t
			r.use(t, follower, plain)
			defer r.use(old, follower, plain)
			part.run(t)
		}) {
			return // the later parts stand on what this one left
		}
	}
}

// use makes failures belong to a part of the test.
func (r *rig) use(t *testing.T, servers ...*server) {
	r.t = t
	for _, s := range append(servers, r.master) {
		s.t = t
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, ctx: t.Context(), log: newMemLog(t)}
	r.journal = NewJournal(r.log, Base{}, testLogger(t))
	r.master = newServer(t, 101, semisyncArgs()...)
	r.log.add(&entry.Value{Kind: entry.Epoch, Epoch: testEpoch, Node: testNode})
	if err := r.journal.WaitThrough(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.attach()
	return r
}

func (r *rig) options() TailOptions {
	return TailOptions{
		Socket: r.master.socket(), User: agentUser, Password: agentPassword, ReplicaID: 999, ReplicaUUID: gtid.UUID{1, 2, 3},
		Epoch: testEpoch, Node: testNode, Logger: quiet(),
	}
}

func (r *rig) attach() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	r.stop = cancel
	r.tail = NewTail(r.log, r.journal, r.options())
	r.ended = make(chan error, 1)
	go func(tail *Tail, ended chan error) { ended <- tail.Run(ctx) }(r.tail, r.ended)
	wait, done := context.WithTimeout(r.t.Context(), deadline)
	defer done()
	if err := r.tail.WaitAttached(wait); err != nil {
		r.t.Fatalf("%v; tail: %v", err, r.pending())
	}
}

// pending is the tail's error if it has ended.
func (r *rig) pending() error {
	select {
	case err := <-r.ended:
		return err
	default:
		return nil
	}
}

// serve starts a source of the rig's log.
func (r *rig) serve(refused func(error)) (net.Addr, *Source) {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	s := NewSource(r.log, r.journal, SourceOptions{
		User: "repl", Password: "relay-secret", ServerID: 4242, ServerUUID: gtid.UUID{0xc1, 0xc2}, ServerVersion: "9.7.4",
		CaughtUp: func() (paxos.Instance, bool) { return r.log.Chosen(), true }, OnRefuse: refused, Logger: quiet(),
	})
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() { _ = s.Serve(ctx, ln); close(done) }()
	r.t.Cleanup(func() { cancel(); <-done })
	return ln.Addr(), s
}

func (r *rig) drain() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), deadline)
	defer cancel()
	if err := r.tail.WaitDrained(ctx); err != nil {
		r.t.Fatalf("%v: %+v; tail: %v", err, r.tail.Stats(), r.pending())
	}
	if err := r.journal.WaitThrough(ctx, r.log.Chosen()); err != nil {
		r.t.Fatal(err)
	}
}

// writers run f in n sessions at once.
func (r *rig) writers(n int, f func(db *sql.DB, k int) error) {
	r.t.Helper()
	db := r.master.conns(n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() { errs[k] = f(db, k) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		r.t.Fatalf("%v; tail: %v", err, r.pending())
	}
}

func insertMany(rows int) func(*sql.DB, int) error {
	return func(db *sql.DB, k int) error {
		for i := range rows {
			if _, err := db.Exec("INSERT INTO t.a (w, v) VALUES (?, ?)", k, strings.Repeat("x", (i*37)%3000)); err != nil {
				return err
			}
		}
		return nil
	}
}

func (r *rig) schema() {
	r.master.exec("CREATE DATABASE t")
	r.master.exec("CREATE TABLE t.a (id INT PRIMARY KEY AUTO_INCREMENT, w INT, v LONGTEXT)")
}

// everyKindOfTransaction: what one master writes, in every form that it has, arrives at a second server
// through the log.
// droppedRoutines looks at what a real server writes about routines.
func droppedRoutines(t *testing.T, r *rig) {
	for _, q := range []string{
		"USE t", "SET binlog_transaction_compression = 1",
		"CREATE PROCEDURE p() SELECT 1", "DROP PROCEDURE p",
		"CREATE FUNCTION F() RETURNS INT DETERMINISTIC RETURN 1", "/*!50003 DROP FUNCTION IF EXISTS `f` */",
		"CREATE PROCEDURE again() SELECT 1", "DROP PROCEDURE `t` . again", "CREATE PROCEDURE IF NOT EXISTS again() SELECT 1",
		"DROP PROCEDURE IF EXISTS never", "CREATE DATABASE gone", "CREATE PROCEDURE gone.p() SELECT 1", "DROP DATABASE gone",
		"CREATE DATABASE gone", "DROP PROCEDURE IF EXISTS gone.p", "DROP DATABASE gone",
		"CREATE PROCEDURE größe() SELECT 1", "DROP PROCEDURE größe",
		"/*!90200 CREATE LIBRARY l LANGUAGE JAVASCRIPT AS 'export function f() {}' */", "/*!90200 DROP LIBRARY l */", "SET binlog_transaction_compression = 0",
	} {
		r.master.exec(q)
	}
	r.drain()
	got, err := r.journal.Dropped(t.Context(), r.master.executed())
	slices.SortFunc(got, func(a, b Routine) int { return strings.Compare(a.Name, b.Name) })
	want := []Routine{{Function, "t", "f"}, {Procedure, "t", "größe"}, {Procedure, "t", "p"}}
	if slices.ContainsFunc(got, func(r Routine) bool { return r.Type == Library }) { // a server that has none passes over it
		want = slices.Insert(want, 2, Routine{Library, "t", "l"})
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("dropped %v, %v, want %v", got, err, want)
	}
}

func everyKindOfTransaction(t *testing.T, r *rig, follower *server) {
	r.writers(8, insertMany(60))
	m := r.master
	m.exec("SET gtid_next = 'AUTOMATIC:blue'")
	m.exec("INSERT INTO t.a (v) VALUES ('tagged')")
	m.exec("SET gtid_next = 'AUTOMATIC'")
	m.exec("SET binlog_transaction_compression = 1")
	m.exec("INSERT INTO t.a (v) VALUES (REPEAT('c', 100000))")
	m.exec("SET binlog_transaction_compression = 0")
	for _, q := range []string{
		"XA START 'x'", "INSERT INTO t.a (v) VALUES ('xa')", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'",
		"CREATE TABLE t.b AS SELECT * FROM t.a", "FLUSH BINARY LOGS", "CREATE USER u IDENTIFIED BY 'p'",
		"CREATE VIEW t.v AS SELECT 1", "ALTER TABLE t.b ADD c INT", "UPDATE t.b SET c = id * 2", "DELETE FROM t.b WHERE id % 3 = 0",
	} {
		m.exec(q)
	}
	r.drain()
	if got, want := r.journal.Executed(), m.executed(); !got.Equal(want) {
		t.Errorf("the log holds %v, the master %v", got, want)
	}
	follower.waitFor(r.journal.Executed())
	sameTables(t, m, follower, "t.a", "t.b")
	if c := r.journal.Counts(); c.Void != 0 || c.Repeated != 0 {
		t.Errorf("counts %+v", c)
	}
}

// killDump cuts the tail's connection at the server and waits for the next one.
func (r *rig) killDump() {
	r.t.Helper()
	before := r.tail.Stats().Connections
	eventually(r.t, "the tail is back", func() bool {
		if s := r.tail.Stats(); s.Attached && s.Connections > before {
			return true
		}
		if id := r.dumpID(); id > r.killed { // a killed one may take a while to go
			r.killed = id
			_, _ = r.master.db.Exec(fmt.Sprintf("KILL %d", id))
		}
		return false
	})
}

// dumpID is the newest session that sends the binlog.
func (r *rig) dumpID() int {
	r.t.Helper()
	var id sql.NullInt64
	err := r.master.db.QueryRow("SELECT MAX(id) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'").Scan(&id)
	if err != nil {
		r.t.Error(err)
	}
	return int(id.Int64)
}

// tailReconnects: commits wait while the tail loses its connection, before and after their
// values are chosen. None is lost, none stands twice in the log, none hangs.
func tailReconnects(t *testing.T, r *rig) {
	for round := range 3 {
		r.log.hold(true)
		done := make(chan struct{})
		go func() { defer close(done); r.writers(6, insertMany(2)) }()
		eventually(t, "values wait", func() bool { return r.log.queuedValues() > 0 })
		r.killDump()
		if round == 1 {
			r.killDump()
		}
		r.log.hold(false)
		<-done
	}
	r.writers(6, func(db *sql.DB, k int) error {
		if k == 0 {
			for range 5 {
				r.killDump()
			}
			return nil
		}
		return insertMany(20)(db, k)
	})
	r.drain()
	if got, want := r.journal.Executed(), r.master.executed(); !got.Equal(want) {
		t.Errorf("the log holds %v, the master %v", got, want)
	}
	if c := r.journal.Counts(); c.Void != 0 || c.Repeated != 0 {
		t.Errorf("counts %+v", c)
	}
	t.Logf("tail %+v", r.tail.Stats())
}

// deposedTail: a deposed master's tail ends; what waits goes on waiting.
func deposedTail(t *testing.T, r *rig) {
	r.drain()
	acked := r.tail.Stats().Acked
	r.log.add(&entry.Value{Kind: entry.Epoch, Epoch: testEpoch + 1, Node: testNode + 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	commit := make(chan error, 1)
	db := r.master.conns(1)
	go func() {
		_, err := db.ExecContext(ctx, "INSERT INTO t.a (v) VALUES ('late')")
		commit <- err
	}()
	select {
	case err := <-r.ended:
		if !errors.Is(err, ErrSuperseded) {
			t.Fatalf("tail ended with %v", err)
		}
	case err := <-commit:
		t.Fatalf("commit answered %v", err)
	}
	if got := r.tail.Stats().Acked; got.After(acked) && r.journal.Counts().Void == 0 {
		t.Errorf("acknowledged %v", got)
	}
	if n := r.journal.Counts().Void; n != 1 {
		t.Errorf("%d void values, want 1", n)
	}
}

// largeTransactions: one of 200 MB and one with events above the packet limit pass in
// chunks, through a broken connection, too.
func largeTransactions(t *testing.T, r *rig, follower *server) {
	m := r.master
	m.exec("SET SESSION cte_max_recursion_depth = 1000")
	m.exec("BEGIN")
	m.exec("INSERT INTO t.a (w, v) VALUES (1, REPEAT('abcdefgh', 5 << 20))") // 40 MB
	m.exec("INSERT INTO t.a (w, v) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 160) " +
		"SELECT i, REPEAT(CHAR(64 + i % 26), 1 << 20) FROM n")
	r.log.hold(true)
	done := make(chan error, 1)
	go func() { _, err := m.db.Exec("COMMIT"); done <- err }()
	eventually(t, "chunks wait", func() bool { return r.log.queuedValues() > 50 })
	r.log.hold(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.exec("INSERT INTO t.a (w, v) VALUES (2, 'after')")
	r.drain()
	follower.waitFor(r.journal.Executed())
	sameTables(t, m, follower, "t.a")
	m.exec("TRUNCATE t.a") // the later parts are about other things
	t.Logf("tail %+v", r.tail.Stats())
}

// followerResumes: a replica that is stopped, kicked and killed goes on where its engine is.
func followerResumes(t *testing.T, r *rig, follower *server, source *Source) {
	done := make(chan struct{})
	go func() { defer close(done); r.writers(4, insertMany(150)) }()
	for range 3 {
		follower.exec("STOP REPLICA")
		follower.exec("START REPLICA")
	}
	follower.kill()
	follower.start()
	follower.exec("START REPLICA")
	<-done
	r.drain()
	follower.waitFor(r.journal.Executed())
	sameTables(t, r.master, follower, "t.a")
	// Idle: heartbeats must not end the connection.
	dumps := source.Stats().Dumps
	follower.exec("SET GLOBAL replica_net_timeout = 1")
	follower.exec("STOP REPLICA")
	follower.exec("START REPLICA")
	sum := follower.status("Last_IO_Error")
	eventually(t, "a heartbeat after transactions", func() bool { return follower.status("Replica_IO_Running") == "Yes" })
	r.writers(1, insertMany(3))
	r.drain()
	follower.waitFor(r.journal.Executed())
	if e := follower.status("Last_IO_Error"); e != "" || sum != "" {
		t.Errorf("the replica complains: %s%s", sum, e)
	}
	t.Logf("dumps %d, then %+v", dumps, source.Stats())
}

// divergedFollower: a server with a transaction of its own making is refused, and says why.
func divergedFollower(t *testing.T, r *rig, follower *server, addr net.Addr, refused <-chan error) {
	r.drain()
	follower.exec("CREATE DATABASE mine")
	errant := follower.executed()
	follower.replicate(addr)
	err := <-refused
	var d *DivergenceError
	if !errors.As(err, &d) || !d.Extra.Equal(errant) {
		t.Errorf("refused with %v, want the extra set %v", err, errant)
	}
	eventually(t, "the replica says why", func() bool {
		return strings.Contains(follower.status("Last_IO_Error"), "never chosen")
	})
}

// unfitMaster: a server whose settings would lose commits is refused before anything is read.
func unfitMaster(t *testing.T, r *rig, plain *server) {
	l := newMemLog(t)
	o := r.options()
	o.Socket = plain.socket()
	tail := NewTail(l, NewJournal(l, Base{}, quiet()), o)
	if err := tail.Run(t.Context()); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "semisync_source") {
		t.Errorf("tail ended with %v", err)
	}
	plain.exec("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
	tail = NewTail(l, NewJournal(l, Base{}, quiet()), o)
	if err := tail.Run(t.Context()); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "rpl_semi_sync_source_enabled") {
		t.Errorf("tail ended with %v", err)
	}
}

// tailNamesItsEnd: a server that holds more than the log, or goes, ends the tail by name.
func tailNamesItsEnd(t *testing.T, r *rig) {
	r.drain()
	r.stop()
	if err := <-r.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("tail ended with %v", err)
	}
	empty := newMemLog(t)
	tail := NewTail(empty, NewJournal(empty, Base{}, quiet()), r.options())
	if err := tail.Run(t.Context()); !errors.Is(err, ErrDiverged) {
		t.Errorf("tail ended with %v", err)
	}
	forgetful := NewTail(r.log, withMore{r.journal, txid(7)}, r.options())
	if err := forgetful.Run(t.Context()); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "lacks") {
		t.Errorf("a server that lacks a part of the log: tail ended with %v", err)
	}
	r.attach()
	// A rotation brings the GTIDs of statements without rows to the disk. A crash takes
	// them away otherwise, and followers get them from a Source again.
	r.master.exec("FLUSH BINARY LOGS")
	r.drain()
	r.master.kill()
	r.master.start()
	if err := <-r.ended; !errors.Is(err, ErrServerGone) {
		t.Errorf("tail ended with %v", err)
	}
	r.attach()
}

// withMore is a ledger of a log that holds one transaction more.
type withMore struct {
	*Journal
	more gtid.GTID
}

func (l withMore) Executed() *gtid.Set {
	set := l.Journal.Executed()
	set.Add(l.more)
	return set
}
