package mysqld

import (
	"slices"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/gtid"
)

func prepare(t *testing.T, s *Server, id string, row int) {
	t.Helper()
	conn, err := s.db.Conn(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	defer discard(conn)
	for _, q := range []string{"XA START " + id, "INSERT INTO d.t VALUES (?)", "XA END " + id, "XA PREPARE " + id} {
		var args []any
		if strings.Contains(q, "?") {
			args = []any{row}
		}
		if _, err := conn.ExecContext(bounded(t), q, args...); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func prepared(t *testing.T, s *Server) []binlog.XAID {
	t.Helper()
	list, err := s.Prepared(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(x, y binlog.XAID) int { return strings.Compare(x.String(), y.String()) })
	return list
}

// What a replica's applier has prepared becomes the server's own before it is a
// master: it survives a kill, and decisions about it are written to the binary log.
func TestPreparedTransactionsBecomeOwn(t *testing.T) {
	t.Parallel()
	source, replica := pair(t)
	must(t, source, "CREATE DATABASE d")
	must(t, source, "CREATE TABLE d.t (a INT PRIMARY KEY)")
	prepare(t, source, "'commit'", 1)
	prepare(t, source, "'rollback12','branch',99", 2)
	prepare(t, source, "X'00ff27ff00ff00ff00','',77", 3)
	prepare(t, source, "X'00ff28ff00ff00ff01','',77", 5)
	prepare(t, source, "'done'", 4)
	must(t, source, "XA COMMIT 'done'")
	caughtUp(t, source, replica)
	want := prepared(t, source)
	if len(want) != 4 {
		t.Fatalf("prepared: %v", want)
	}
	if _, err := replica.OwnPrepared(bounded(t)); err == nil {
		t.Fatal("a replica that replicates was restarted")
	}
	if err := replica.StopReplica(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	restarted, err := replica.OwnPrepared(bounded(t))
	if err != nil || !restarted {
		t.Fatalf("restarted %v, %v", restarted, err)
	}
	if got := prepared(t, replica); !slices.Equal(got, want) {
		t.Errorf("prepared %v, want %v", got, want)
	}
	before := executed(t, source)
	if got := executed(t, replica); got != before {
		t.Errorf("executed %s, want %s", got, before)
	}
	if err := replica.Kill(); err != nil {
		t.Fatal(err)
	}
	start(t, replica)
	if got := prepared(t, replica); !slices.Equal(got, want) {
		t.Errorf("after a kill prepared %v, want %v", got, want)
	}
	if got := executed(t, replica); got != before {
		t.Errorf("after a kill executed %s, want %s", got, before)
	}
	writable(t, replica, true)
	must(t, replica, "XA COMMIT 'commit'")
	must(t, replica, "XA ROLLBACK 'rollback12','branch',99")
	set, err := gtid.ParseSet(executed(t, replica))
	if err != nil {
		t.Fatal(err)
	}
	old, _ := gtid.ParseSet(before)
	set.Subtract(old)
	if set.Count() != 2 {
		t.Errorf("the decisions are %d transactions, want 2", set.Count())
	}
	if restarted, err := source.OwnPrepared(bounded(t)); err == nil || restarted {
		t.Errorf("a writable server: restarted %v, %v", restarted, err)
	}
}
