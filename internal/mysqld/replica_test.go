package mysqld

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// forward gives a server's socket a TCP port, as replication needs one.
func forward(t *testing.T, s *Server) Source {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", s.Socket())
			if err != nil {
				_ = c.Close()
				continue
			}
			go pipe(up, c)
			go pipe(c, up)
		}
	}()
	user, password := s.Agent()
	return Source{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, User: user, Password: password}
}

func pipe(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	_ = dst.Close()
}

// pair starts a writable server that waits for nobody, and a replica of it.
func pair(t *testing.T) (source, replica *Server) {
	t.Helper()
	source = startServer(t, testConfig(t))
	writable(t, source, true)
	cfg := testConfig(t)
	cfg.ServerID = 8
	replica = startServer(t, cfg)
	if err := replica.StartReplica(bounded(t), forward(t, source)); err != nil {
		t.Fatal(err)
	}
	return source, replica
}

func caughtUp(t *testing.T, source, replica *Server) {
	t.Helper()
	if err := replica.WaitForExecuted(bounded(t), executed(t, source)); err != nil {
		t.Fatal(err)
	}
}

func TestReplicaFollowsAndStops(t *testing.T) {
	t.Parallel()
	source, replica := pair(t)
	must(t, source, "CREATE DATABASE d")
	must(t, source, "CREATE TABLE d.t (a INT PRIMARY KEY)")
	if err := source.CreateUser(bounded(t), "app", "it's \\ secret"); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, source, replica)
	if diff := cmp.Diff(executed(t, source), executed(t, replica)); diff != "" {
		t.Error(diff)
	}
	grants := "SELECT COUNT(*) FROM mysql.global_grants WHERE user = 'app'"
	if a, b := scan[int](t, source, grants), scan[int](t, replica, grants); a != b || a == 0 {
		t.Errorf("%d and %d dynamic privileges", a, b)
	}
	st, err := replica.ReplicaStatus(bounded(t))
	if err != nil || !st.IO || !st.SQL || st.Err() != nil || st.Retrieved != executed(t, source) {
		t.Errorf("%+v, %v", st, err)
	}
	// The replica's own commits wait for nobody, and it logs none of them.
	if n := waiting(t, replica); n != 0 {
		t.Errorf("%d sessions wait on the replica", n)
	}
	// Another password for the source, while the replica goes on.
	if err := source.Rotate(bounded(t), secretA); err != nil {
		t.Fatal(err)
	}
	if err := replica.SetSourcePassword(bounded(t), secretA); err != nil {
		t.Fatal(err)
	}
	if err := source.ForgetOld(bounded(t)); err != nil {
		t.Fatal(err)
	}
	must(t, source, "CREATE TABLE d.u (a INT PRIMARY KEY)")
	caughtUp(t, source, replica)
	if got := scan[string](t, replica, "SELECT User_password FROM mysql.slave_master_info"); got != secretA {
		t.Errorf("the replica has the password %q", got)
	}
	if err := replica.StopReplica(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	if err := replica.SetSourcePassword(bounded(t), secretB); err != nil {
		t.Errorf("a server that is no replica: %v", err)
	}
	if st, err := replica.ReplicaStatus(bounded(t)); err != nil || st.Configured {
		t.Errorf("%+v, %v", st, err)
	}
}

// A killed replica comes back with exactly what its engine holds, and goes on.
func TestKilledReplicaGoesOn(t *testing.T) {
	t.Parallel()
	source, replica := pair(t)
	must(t, source, "CREATE DATABASE d")
	must(t, source, "CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT)")
	for range 20 {
		must(t, source, "INSERT INTO d.t VALUES (), ()")
	}
	if err := replica.Kill(); err != nil {
		t.Fatal(err)
	}
	start(t, replica)
	if st, err := replica.ReplicaStatus(bounded(t)); err != nil || st.SQL || st.IO {
		t.Errorf("replication runs after a start: %+v, %v", st, err)
	}
	if err := replica.StartReplica(bounded(t), forward(t, source)); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, source, replica)
	if n := scan[int](t, replica, "SELECT COUNT(*) FROM d.t"); n != 40 {
		t.Errorf("%d rows", n)
	}
}

func TestBrokenReplicaSaysWhy(t *testing.T) {
	t.Parallel()
	source, replica := pair(t)
	must(t, replica, "SET GLOBAL read_only = OFF")
	must(t, replica, "SET GLOBAL rpl_semi_sync_source_enabled = OFF")
	must(t, replica, "CREATE DATABASE d")
	must(t, source, "CREATE DATABASE d")
	eventually(t, "the applier stops", func() bool {
		st, err := replica.ReplicaStatus(bounded(t))
		return err == nil && !st.SQL
	})
	st, err := replica.ReplicaStatus(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if st.Err() == nil || !strings.Contains(st.Err().Error(), "database exists") {
		t.Error(st.Err())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := replica.WaitForExecuted(ctx, executed(t, source)); err == nil {
		t.Error("a broken replica has executed everything")
	}
}

func eventStatus(t *testing.T, s *Server) map[string]string {
	t.Helper()
	rows, err := s.db.QueryContext(bounded(t), "SELECT event_name, status FROM information_schema.events")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // the test is over
	out := map[string]string{}
	for rows.Next() {
		var name, status string
		if err := rows.Scan(&name, &status); err != nil {
			t.Fatal(err)
		}
		out[name] = status
	}
	return out
}

func eventText(t *testing.T, s *Server, name string) string {
	t.Helper()
	row, err := s.namedRow(bounded(t), "SHOW CREATE EVENT d."+name)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(row["Create Event"], "DISABLE ON REPLICA", "ENABLE")
	return strings.Join([]string{text, row["sql_mode"], row["time_zone"], row["character_set_client"],
		row["collation_connection"], row["Database Collation"]}, "\n")
}

func TestEventsFollowTheMaster(t *testing.T) {
	t.Parallel()
	source, replica := pair(t)
	if on := scan[string](t, source, "SELECT @@GLOBAL.event_scheduler"); on != "OFF" {
		t.Fatalf("the scheduler of a started server is %s", on)
	}
	must(t, source, "CREATE DATABASE d")
	must(t, source, "CREATE TABLE d.t (a INT PRIMARY KEY AUTO_INCREMENT)")
	conn, err := source.db.Conn(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"SET SESSION sql_mode = 'ANSI', time_zone = '+03:00'",
		"CREATE DEFINER = 'some@one'@'%' EVENT d.tick ON SCHEDULE EVERY 1 HOUR STARTS '2031-01-01 00:00:00' COMMENT 'x' DO INSERT INTO d.t VALUES ()",
		"CREATE EVENT d.off ON SCHEDULE EVERY 1 HOUR DISABLE DO INSERT INTO d.t VALUES ()",
		"CREATE EVENT d.now_off ON SCHEDULE EVERY 1 HOUR DO INSERT INTO d.t VALUES ()",
		"ALTER EVENT d.now_off DISABLE",
		"CREATE EVENT d.off_and_altered ON SCHEDULE EVERY 1 HOUR DISABLE DO INSERT INTO d.t VALUES ()",
		"ALTER EVENT d.off_and_altered COMMENT 'y'",
		"CREATE EVENT d.once ON SCHEDULE AT '2031-01-01 00:00:00' ON COMPLETION PRESERVE DO INSERT INTO d.t VALUES ()",
	} {
		if _, err := conn.ExecContext(bounded(t), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	discard(conn)
	if err := source.RecordEvents(bounded(t)); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, source, replica)
	want := eventStatus(t, source)
	text := eventText(t, source, "tick")
	for name, status := range eventStatus(t, replica) {
		if status != "REPLICA_SIDE_DISABLED" {
			t.Errorf("event %s arrived as %s", name, status)
		}
	}
	if err := replica.EnableEvents(bounded(t)); err == nil {
		t.Error("events were enabled on a read-only server")
	}
	// Promotion of the replica; the source becomes a replica of it.
	if err := source.DisableEvents(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := source.SetReadOnly(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	if err := replica.StopReplica(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	writable(t, replica, true)
	for range 2 {
		if err := replica.EnableEvents(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, eventStatus(t, replica)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(text, eventText(t, replica, "tick")); diff != "" {
		t.Error(diff)
	}
	if on := scan[string](t, replica, "SELECT @@GLOBAL.event_scheduler"); on != "ON" {
		t.Errorf("the scheduler is %s", on)
	}
	// What was recorded goes with the events.
	must(t, replica, "DROP EVENT d.off")
	must(t, replica, "ALTER EVENT d.now_off ENABLE")
	for range 2 {
		if err := replica.RecordEvents(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	delete(want, "off")
	if err := source.StartReplica(bounded(t), forward(t, replica)); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, replica, source)
	if n := scan[int](t, source, "SELECT COUNT(*) FROM phxsql_meta.disabled_events"); n != 1 {
		t.Errorf("%d disabled events recorded, want 1", n)
	}
	for name := range want {
		want[name] = "REPLICA_SIDE_DISABLED"
	}
	if diff := cmp.Diff(want, eventStatus(t, source)); diff != "" {
		t.Error(diff)
	}
}
