package agent

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/relay"
)

// A server does not follow before what its earlier lives have left undone is done.
func TestAReplicaFirstEndsWhatWasDropped(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*realLimit)
	defer cancel()
	in, err := engine.Ensure(ctx, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := mysqld.Open(mysqld.Config{Install: in, Dir: t.TempDir(), ServerID: 1, BufferPool: 32 << 20, MaxConnections: 20,
		StartTimeout: realLimit, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var asked int
	refusal := relay.ErrLogShort
	d := &localServer{Server: s, source: mysqld.Source{Host: "127.0.0.1", Port: 1, User: "u", Password: "p"}}
	d.dropped = func(context.Context, *gtid.Set) ([]relay.Routine, error) {
		asked++
		return []relay.Routine{{Type: relay.Procedure, Schema: "d", Name: "p"}}, refusal
	}
	if err := d.Init(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx, func(string) {}); err != nil {
		t.Fatal(err)
	}
	keepGrant(t, ctx, s)

	// While the log is too short it follows: nobody could ever lead otherwise, and the
	// log would stay as it is.
	if err := d.StartReplica(ctx); err != nil {
		t.Fatal(err)
	}
	follows := func(when string, grants int) {
		t.Helper()
		if o, err := d.Observe(ctx); err != nil || o.Replica != cluster.ReplicaRunning {
			t.Errorf("%s: it does not follow: %+v, %v", when, o, err)
		}
		if left, err := s.UngroundedGrants(ctx); err != nil || len(left) != grants {
			t.Errorf("%s: left are %v, %v, want %d", when, left, err, grants)
		}
	}
	follows("while the log is too short", 2)
	refusal = nil
	follows("when the log is long enough", 1)
	follows("afterwards", 1)
	left, err := s.UngroundedGrants(ctx)
	if want := []mysqld.Routine{{Type: "FUNCTION", Schema: "d", Name: "p"}}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are %v, %v, want %v", left, err, want)
	}
	if err := d.StopReplica(ctx); err != nil {
		t.Fatal(err)
	}
	before := asked
	if err := d.StartReplica(ctx); err != nil || asked != before {
		t.Errorf("asked again in the same life, %v", err)
	}
}

// keepGrant leaves grants on routines that do not exist.
func keepGrant(t *testing.T, ctx context.Context, s *mysqld.Server) {
	t.Helper()
	session, end, err := s.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	for _, q := range []string{
		"SET sql_log_bin = 0", "SET GLOBAL super_read_only = OFF",
		"INSERT INTO mysql.procs_priv (host, db, user, routine_name, routine_type, proc_priv) VALUES ('%', 'd', 'u', 'p', 'PROCEDURE', 'Execute'), ('%', 'd', 'u', 'p', 'FUNCTION', 'Execute')",
		"SET GLOBAL super_read_only = ON",
	} {
		if _, err := session.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}
