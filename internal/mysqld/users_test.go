package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// client connects as an account of clients.
func client(t *testing.T, s *Server, user, password string) *sql.DB {
	t.Helper()
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.Logger = user, password, "unix", s.Socket(), noLog{}
	con, err := mysql.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(con)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestClientAccountIsUsefulAndHarmless(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	writable(t, s, true)
	// As an interrupted call leaves it.
	if _, err := s.db.ExecContext(bounded(t), "CREATE USER app@'%' IDENTIFIED BY 'lost' ACCOUNT LOCK"); err != nil {
		t.Fatal(err)
	}
	if has, err := s.HasClients(bounded(t)); err != nil || has {
		t.Errorf("HasClients: %v, %v", has, err)
	}
	const password = `quote ' backslash \ 语`
	if err := s.CreateUser(bounded(t), "app", password); err != nil {
		t.Fatal(err)
	}
	if has, err := s.HasClients(bounded(t)); err != nil || !has {
		t.Errorf("HasClients: %v, %v", has, err)
	}
	if err := s.CreateUser(bounded(t), "app", "other"); !errors.Is(err, ErrUserExists) {
		t.Errorf("made twice: %v", err)
	}
	db := client(t, s, "app", password)
	for _, q := range []string{
		"CREATE DATABASE d",
		"CREATE TABLE d.t (a INT PRIMARY KEY)",
		"CREATE USER reader@'%' IDENTIFIED BY 'x'",
		"GRANT SELECT, INSERT, EXECUTE ON d.* TO reader@'%'",
		"CREATE ROLE r",
		"CREATE DEFINER = reader@'%' PROCEDURE d.p() INSERT INTO d.t VALUES (1)",
		"CREATE TRIGGER d.tr BEFORE INSERT ON d.t FOR EACH ROW SET NEW.a = NEW.a + 1",
		"CREATE EVENT d.e ON SCHEDULE EVERY 1 DAY DO CALL d.p()",
		"CALL d.p()",
		"SHOW PROCESSLIST",
		"FLUSH TABLES",
	} {
		if _, err := db.ExecContext(bounded(t), q); err != nil {
			t.Errorf("%s: %v", q, err)
		}
	}
	before := executed(t, s)
	for _, q := range []string{
		"SHUTDOWN", "RESTART",
		"SET SESSION sql_log_bin = 0",
		"SET GLOBAL super_read_only = ON",
		"SET GLOBAL rpl_semi_sync_source_enabled = OFF",
		"SET PERSIST max_connections = 10",
		"SET SESSION gtid_next = 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1'",
		"RESET BINARY LOGS AND GTIDS",
		"PURGE BINARY LOGS BEFORE NOW()",
		"FLUSH BINARY LOGS",
		"START REPLICA",
		"CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'h'",
		"UNINSTALL PLUGIN rpl_semi_sync_source",
		"ALTER INSTANCE DISABLE INNODB REDO_LOG",
		"DROP USER phxsql_agent@localhost",
		"ALTER USER phxsql_agent@localhost IDENTIFIED BY 'mine'",
		"GRANT REPLICATION SLAVE ON *.* TO reader@'%'",
		"GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO reader@'%'",
		"UPDATE mysql.user SET Super_priv = 'Y' WHERE user = 'app'",
		"DROP TABLE mysql.user",
		"INSTALL PLUGIN x SONAME 'x.so'",
		"INSTALL COMPONENT 'file://component_validate_password'",
		"CREATE FUNCTION x RETURNS INTEGER SONAME 'x.so'",
		"CLONE LOCAL DATA DIRECTORY = '/tmp/never'",
		"SELECT * FROM d.t INTO OUTFILE '/tmp/never'",
	} {
		if _, err := db.ExecContext(bounded(t), q); err == nil {
			t.Errorf("%s is allowed", q)
		}
	}
	if got := executed(t, s); got != before {
		t.Errorf("a refused statement left a transaction: %s, before %s", got, before)
	}
}

// A commit that slipped through would be lost silently: not even the agent can
// unload what makes commits wait.
func TestSemiSyncCannotBeUnloaded(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	writable(t, s, true)
	if _, err := s.db.ExecContext(bounded(t), "UNINSTALL PLUGIN rpl_semi_sync_source"); err == nil {
		t.Error("the plugin was unloaded")
	}
}

func TestReservedUserNames(t *testing.T) {
	for _, name := range []string{"", "root", "phxsql_agent", "mysql.sys", strings.Repeat("x", 33)} {
		if CheckUserName(name) == nil {
			t.Errorf("%q is allowed", name)
		}
	}
	if err := CheckUserName("app"); err != nil {
		t.Error(err)
	}
}

func TestLockWaitersEndIfReplicationWaits(t *testing.T) {
	t.Parallel()
	s, db := withClient(t)
	holder, err := db.Conn(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.ExecContext(bounded(t), "LOCK TABLES d.t READ"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(bounded(t), "LOCK TABLES d.t WRITE")
		ended <- err
	}()
	eventually(t, "the other one waits", func() bool {
		ids, err := s.ids(bounded(t), "SELECT id FROM information_schema.processlist WHERE "+waitsForLock)
		return err == nil && len(ids) == 1
	})
	if n, err := s.EndLockWaiters(bounded(t), 0); err != nil || n != 0 {
		t.Errorf("nothing replicates, and %d sessions were ended: %v", n, err)
	}
	if n, err := s.endLockWaiters(bounded(t), time.Hour, "app"); err != nil || n != 0 {
		t.Errorf("%d sessions that have waited for an hour were ended: %v", n, err)
	}
	if n, err := s.endLockWaiters(bounded(t), 0, "app"); err != nil || n != 1 {
		t.Errorf("%d sessions were ended: %v", n, err)
	}
	if err := <-ended; err == nil {
		t.Error("a session that was ended got its lock")
	}
	if err := holder.PingContext(bounded(t)); err != nil {
		t.Errorf("who waits for nothing was ended, too: %v", err)
	}
}

func TestOpenTransactionsAndKill(t *testing.T) {
	t.Parallel()
	s, db := withClient(t)
	connect := func() (*sql.Conn, uint64) {
		conn, err := db.Conn(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		var id uint64
		if err := conn.QueryRowContext(bounded(t), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		return conn, id
	}
	busy, busyID := connect()
	idle, idleID := connect()
	for _, q := range []string{"START TRANSACTION", "INSERT INTO d.t VALUES (1)"} {
		if _, err := busy.ExecContext(bounded(t), q); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the transaction shows", func() bool {
		open, err := s.InTransaction(bounded(t))
		return err == nil && open[busyID] && !open[idleID]
	})
	if n, err := s.KillClients(bounded(t)); err != nil || n != 2 {
		t.Errorf("killed %d, %v", n, err)
	}
	for _, conn := range []*sql.Conn{busy, idle} {
		if err := conn.PingContext(context.Background()); err == nil {
			t.Error("a killed session answers")
		}
	}
	if err := s.Ping(bounded(t)); err != nil {
		t.Error(err)
	}
}

// withClient starts a writable server with the table d.t and a client of it.
func withClient(t *testing.T) (*Server, *sql.DB) {
	t.Helper()
	s := startServer(t, testConfig(t))
	writable(t, s, true)
	must(t, s, "CREATE DATABASE d")
	must(t, s, "CREATE TABLE d.t (a INT PRIMARY KEY)")
	if err := s.CreateUser(bounded(t), "app", "pw"); err != nil {
		t.Fatal(err)
	}
	return s, client(t, s, "app", "pw")
}
