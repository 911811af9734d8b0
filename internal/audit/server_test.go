package audit

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/mysqld"
)

// server starts a real server and returns two sessions of it that write past the binlog,
// as nobody confirms commits here.
func server(t *testing.T) (one, two *sql.Conn) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	install, err := engine.Ensure(ctx, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "phxaudit") // the socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := mysqld.Open(mysqld.Config{Install: install, Dir: dir, ServerID: 1, BufferPool: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Initialize(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	session := func() *sql.Conn {
		conn, end, err := s.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(end)
		for _, q := range []string{"SET sql_log_bin = 0", "SET GLOBAL read_only = OFF", "SET cte_max_recursion_depth = 100000", Settings} {
			run(t, conn, q)
		}
		return conn
	}
	return session(), session()
}

func run(t *testing.T, conn *sql.Conn, query string) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// tables are made alike in two schemas; each tells how many rows it has. A statement
// that changes one row of the copy follows.
var tables = []struct{ create, insert, change string }{
	{"t1 (id BIGINT PRIMARY KEY, v VARCHAR(20))", "SELECT i * 1000003 - 9000000000000000000, i FROM n", "UPDATE t1 SET v = NULL ORDER BY id LIMIT 1"},
	{"t2 (id BIGINT UNSIGNED PRIMARY KEY, f FLOAT, d DOUBLE)", "SELECT 18446744073709551615 - i, i / 3, i / 7 FROM n", "UPDATE t2 SET d = d + 1e-9 ORDER BY id DESC LIMIT 1"},
	{"t3 (a VARCHAR(30) COLLATE utf8mb4_0900_ai_ci, b INT, c ENUM('x','y') NULL, PRIMARY KEY (a, b))", "SELECT CONCAT('Ä\\'\"', i % 7), i, IF(i % 2, 'x', NULL) FROM n", "UPDATE t3 SET c = 'y' WHERE b = 5000"},
	{"t4 (h VARBINARY(16) PRIMARY KEY, t TEXT, j JSON, b BIT(9), g POINT)", "SELECT UNHEX(LPAD(HEX(i * 7919), 32, 'A0')), REPEAT('z', i % 99), JSON_OBJECT('i', i), i % 512, ST_SRID(POINT(i, 1), 0) FROM n", "UPDATE t4 SET j = JSON_OBJECT('i', 0) LIMIT 1"},
	{"t5 (at TIMESTAMP(6), n DECIMAL(20,5), v INT, PRIMARY KEY (at, n DESC))", "SELECT FROM_UNIXTIME(1700000000 + i DIV 10), -i / 3, i FROM n", "DELETE FROM t5 LIMIT 1"},
	{"t6 (c CHAR(10) CHARACTER SET latin1 PRIMARY KEY, v INT, w INT AS (v + 1) VIRTUAL, s INT AS (v + 2) STORED)", "SELECT CONCAT('é', i), i FROM n", "UPDATE t6 SET v = v + 1 LIMIT 1"},
}

// Every row of a table is in exactly one of its pieces, and two tables with the same
// rows have the same sums; one changed row is found.
func TestPiecesOfARealServer(t *testing.T) {
	conn, other := server(t)
	const rows = 5003
	for _, schema := range []string{"one", "two"} {
		run(t, conn, "CREATE DATABASE "+schema)
		run(t, conn, "USE "+schema)
		for _, x := range tables {
			run(t, conn, "CREATE TABLE "+x.create)
			cols := ""
			if x.create[:2] == "t6" {
				cols = " (c, v)"
			}
			run(t, conn, "INSERT INTO "+x.create[:2]+cols+" WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < "+fmt.Sprint(rows)+") "+x.insert)
		}
		run(t, conn, "CREATE TABLE few (v INT)")
		run(t, conn, "SET sql_generate_invisible_primary_key = OFF")
		run(t, conn, "CREATE TABLE bare (v INT)")
		run(t, conn, "INSERT INTO bare VALUES (1), (1), (NULL)")
		run(t, conn, "SET sql_generate_invisible_primary_key = ON")
	}
	list, err := Tables(t.Context(), conn)
	if err != nil || len(list) != 2*(len(tables)+2) {
		t.Fatalf("%v, %v", list, err)
	}
	for n, x := range tables {
		name := x.create[:2]
		one, pieces := total(t, conn, Table{"one", name})
		two, _ := total(t, conn, Table{"two", name})
		if one.Rows != rows || pieces != 3 || one != two {
			t.Errorf("%s: %d pieces with %+v and %+v", name, pieces, one, two)
		}
		run(t, conn, "USE two")
		run(t, conn, x.change)
		if two, _ = total(t, conn, Table{"two", name}); one == two {
			t.Errorf("%s: %s is not found", name, tables[n].change)
		}
	}
	for name, want := range map[string]uint64{"few": 0, "bare": 3} {
		if s, pieces := total(t, conn, Table{"one", name}); s.Rows != want || pieces != 1 {
			t.Errorf("%s: %d pieces with %+v", name, pieces, s)
		}
	}
	if s, err := SumUp(t.Context(), conn, Piece{Table: Table{"one", "none"}}); err != nil || !s.Missing {
		t.Errorf("a table that is not there: %+v, %v", s, err)
	}
	if s, err := SumUp(t.Context(), conn, Piece{Table: Table{"one", "t1"}, Key: []string{"gone"}, After: ints("1")}); err != nil || s.Unknown == "" {
		t.Errorf("a key that is not there: %+v, %v", s, err)
	}
	t.Run("Rules", func(t *testing.T) { rulesOfARealServer(t, conn) })
	t.Run("RulesInASnapshot", func(t *testing.T) { rulesInASnapshot(t, conn, other) })
}

// changes are statements with what they change: the tables, and who is named.
var changes = []struct{ sql, table, who string }{
	{"CREATE USER u@'10.%' IDENTIFIED BY 'x'", "user", "'u'@'10.%'"},
	{"ALTER USER u@'10.%' IDENTIFIED BY 'y' RETAIN CURRENT PASSWORD", "user", "'u'@'10.%'"},
	{"ALTER USER u@'10.%' ACCOUNT LOCK", "user", "'u'@'10.%'"},
	{"ALTER USER u@'10.%' REQUIRE SUBJECT '/CN=u'", "user", "'u'@'10.%'"},
	{"ALTER USER u@'10.%' WITH MAX_USER_CONNECTIONS 7", "user", "'u'@'10.%'"},
	{"ALTER USER u@'10.%' PASSWORD EXPIRE INTERVAL 9 DAY", "user", "'u'@'10.%'"},
	{"ALTER USER u@'10.%' COMMENT 'mine'", "", ""},
	{"CREATE USER 'größe'", "", ""},
	{"GRANT SELECT ON `größe`.* TO u@'10.%'", "", ""},
	{"GRANT SELECT ON *.* TO u@'10.%'", "user", "'u'@'10.%'"},
	{"REVOKE SELECT ON one.* FROM u@'10.%'", "user", "'u'@'10.%'"}, // a partial revoke
	{"GRANT INSERT ON two.* TO u@'10.%' WITH GRANT OPTION", "db", "'u'@'10.%'"},
	{"GRANT UPDATE ON two.few TO u@'10.%'", "tables_priv", "'u'@'10.%' on two.few"},
	{"GRANT DELETE, UPDATE (v) ON two.few TO u@'10.%'", "columns_priv tables_priv", "'u'@'10.%' on two.few"},
	{"GRANT UPDATE (v) ON one.few TO u@'10.%'", "columns_priv", "'u'@'10.%' on one.few"},
	{"GRANT ROLE_ADMIN ON *.* TO u@'10.%'", "global_grants", "'u'@'10.%'"},
	{"GRANT ROLE_ADMIN ON *.* TO u@'10.%' WITH GRANT OPTION", "global_grants", "'u'@'10.%'"},
	{"CREATE ROLE 'it''s'", "user", "'it''s'@'%'"},
	{"GRANT 'it''s' TO u@'10.%'", "role_edges", "'u'@'10.%'"},
	{"SET DEFAULT ROLE 'it''s' TO u@'10.%'", "default_roles", "'u'@'10.%'"},
	{"INSERT INTO mysql.proxies_priv (host, user, proxied_host, proxied_user) VALUES ('10.%', 'u', '%', 'it''s')", "proxies_priv", "'u'@'10.%'"},
	{"CREATE PROCEDURE two.p() SELECT 1", "ROUTINES", "procedure two.p"},
	{"ALTER PROCEDURE two.p SQL SECURITY INVOKER", "ROUTINES", "procedure two.p"},
	{"CREATE FUNCTION two.p() RETURNS INT DETERMINISTIC RETURN 1", "ROUTINES", "function two.p"},
	{"CREATE TRIGGER two.g BEFORE INSERT ON two.few FOR EACH ROW SET NEW.v = 1", "TRIGGERS", "trigger two.g"},
	{"CREATE TRIGGER two.h BEFORE INSERT ON two.few FOR EACH ROW SET NEW.v = 2", "TRIGGERS", "trigger two.h"},
	{"DROP TRIGGER two.h", "TRIGGERS", "trigger two.h"},
	{"SET NAMES latin1", "", ""},
	{"CREATE PROCEDURE two.`\xe9`() SELECT 1", "", ""}, // a replica reads another name, and another comment
	{"CREATE DEFINER = `\xe9`@`%` FUNCTION two.d() RETURNS INT DETERMINISTIC RETURN 1", "", ""},
	{"CREATE DEFINER = `\xe9`@`%` TRIGGER two.d BEFORE UPDATE ON two.few FOR EACH ROW SET NEW.v = 1", "", ""},
	{"CREATE PROCEDURE two.l() COMMENT '\xe9' SELECT '\xe9'", "ROUTINES", "procedure two.l"},
	{"ALTER PROCEDURE two.l COMMENT 'e'", "", ""},
	{"ALTER PROCEDURE two.l SQL SECURITY INVOKER", "ROUTINES", "procedure two.l"},
	{"SET NAMES utf8mb4 COLLATE utf8mb4_bin", "", ""},
	{"CREATE PROCEDURE two.u() COMMENT 'é' SELECT 1", "ROUTINES", "procedure two.u"},
	{"ALTER PROCEDURE two.u COMMENT 'e'", "ROUTINES", "procedure two.u"},
	{"CREATE VIEW two.w AS SELECT 1", "", ""},
	{"CREATE EVENT two.e ON SCHEDULE EVERY 1 DAY DO SELECT 1", "", ""},
	{"GRANT EXECUTE ON PROCEDURE two.p TO u@'10.%'", "procs_priv", "'u'@'10.%' on procedure two.p"},
	{"REVOKE EXECUTE ON PROCEDURE two.p FROM u@'10.%'", "procs_priv", "'u'@'10.%' on procedure two.p"},
	{"DROP PROCEDURE two.p", "ROUTINES", "procedure two.p"},
	{"INSERT INTO mysql.procs_priv (host, db, user, routine_name, routine_type, proc_priv) VALUES ('10.%', 'two', 'u', 'p', 'PROCEDURE', 'Execute')", "", ""},
	{"CREATE USER phxsql_agent", "user", "'phxsql_agent'@'%'"}, // at another host
	{"GRANT phxsql_agent@localhost TO u@'10.%'", "role_edges", "'u'@'10.%'"},
	{"ALTER USER 'mysql.sys'@localhost ACCOUNT UNLOCK", "user", "'mysql.sys'@'localhost'"},
	// What each member does by itself, and what only the version of the server tells.
	{"ALTER USER phxsql_agent@localhost IDENTIFIED BY 'other' RETAIN CURRENT PASSWORD", "", ""},
	{"ALTER USER phxsql_copy@localhost IDENTIFIED BY 'other'", "", ""},
	{"GRANT SELECT, ROLE_ADMIN ON *.* TO phxsql_copy@localhost", "", ""},
	{"GRANT SELECT ON two.few TO 'mysql.session'@localhost", "", ""},
	{"ALTER USER root@localhost IDENTIFIED BY 'other' ACCOUNT UNLOCK", "", ""},
}

// Every kind of change of an account, a grant, a routine and a trigger is seen and named,
// and nothing that members do by themselves is.
func rulesOfARealServer(t *testing.T, conn *sql.Conn) {
	for _, u := range []string{mysqld.AgentUser, mysqld.CopyUser} {
		if !(account{u, ownHost}).own() {
			t.Errorf("%s is compared", u)
		}
	}
	pieces, err := RulePieces(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	sum := func() Result {
		t.Helper()
		res, err := SumAll(t.Context(), conn, pieces, 1e6, true)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range res.Sums {
			if s.Unknown != "" {
				t.Fatalf("%v is unknown: %s", pieces[i].Table, s.Unknown)
			}
		}
		return res
	}
	before := sum()
	before.Node = 1
	for _, c := range changes {
		run(t, conn, c.sql)
		after := sum()
		after.Node = 2
		var tables, who []string
		for _, d := range Judge(len(pieces), []Result{before, after}, 1) {
			tables = append(tables, pieces[d.Piece].Name)
			who = append(who, d.Names...)
			if want := slices.Contains([]string{"procs_priv", "columns_priv"}, pieces[d.Piece].Name) || pieces[d.Piece].Rule == revokeRule; pieces[d.Piece].Advisory() != want {
				t.Errorf("%v: advisory is not %v", pieces[d.Piece].Table, want)
			}
		}
		slices.Sort(tables)
		if got := strings.Join(tables, " "); got != c.table || slices.ContainsFunc(who, func(w string) bool { return w != c.who }) || len(who) != len(tables) {
			t.Errorf("%s: %q of %q differ, want %q of %q", c.sql, got, who, c.table, c.who)
		}
		before = after
		before.Node = 1
	}
	lines, err := RuleLines(t.Context(), conn)
	if err != nil || len(lines) < len(sources()) {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	unknownToOthers(t, conn, pieces)
}

// What is compared by rules is that of the snapshot, whatever statements follow, and they
// do not wait.
func rulesInASnapshot(t *testing.T, conn, other *sql.Conn) {
	for _, q := range []string{"CREATE DATABASE three", "CREATE TABLE three.t (v INT)", "CREATE TRIGGER three.g BEFORE INSERT ON three.t FOR EACH ROW SET NEW.v = 1",
		"CREATE PROCEDURE three.p() SELECT 1", "CREATE USER x", "GRANT EXECUTE ON PROCEDURE three.p TO x"} {
		run(t, conn, q)
	}
	pieces, err := RulePieces(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	sum := func() Result {
		t.Helper()
		res, err := SumAll(t.Context(), other, pieces, 1e6, true)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	run(t, other, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
	before := sum()
	run(t, conn, "SET lock_wait_timeout = 1")
	for _, q := range []string{
		"CREATE USER y", "GRANT SELECT ON three.t TO x", "CREATE ROLE z", "GRANT z TO x", "SET DEFAULT ROLE z TO x", "GRANT EXECUTE ON PROCEDURE three.p TO y",
		"CREATE PROCEDURE three.q() SELECT 1", "DROP PROCEDURE three.p", "CREATE TRIGGER three.h BEFORE INSERT ON three.t FOR EACH ROW SET NEW.v = 2",
		"DROP TRIGGER three.g", "DROP USER x", "DROP DATABASE three",
	} {
		run(t, conn, q)
		if diff := cmp.Diff(before, sum()); diff != "" {
			t.Errorf("%s: %s", q, diff)
		}
	}
	run(t, other, "COMMIT")
	if before.Node = 1; len(Judge(len(pieces), []Result{before, sum()}, 1)) == 0 {
		t.Error("nothing has changed behind the snapshot")
	}
}

// A member of an older release, of one with other rules, and one with another server
// know nothing of such a piece.
func unknownToOthers(t *testing.T, conn *sql.Conn, pieces []Piece) {
	for _, p := range pieces {
		old, err := SumUp(t.Context(), conn, p) // what there was before there were rules
		if err != nil || old.Unknown != keyChanged || old.Missing {
			t.Errorf("an older release says of %v: %+v, %v", p.Table, old, err)
		}
		if why := old.Why(p); !strings.Contains(why, "release") {
			t.Errorf("people are told: %s", why)
		}
		for _, change := range []func(*Piece){
			func(p *Piece) { p.Rule = "accounts/0" },
			func(p *Piece) { p.Engine = "8.4.0" },
			func(p *Piece) { p.Name = "password_history" },
		} {
			other := p
			change(&other)
			if s, _, err := sumRule(t.Context(), conn, other); err != nil || s.Unknown == "" {
				t.Errorf("%+v: %+v, %v", other, s, err)
			}
		}
	}
}

// total adds up all pieces of a table.
func total(t *testing.T, conn *sql.Conn, table Table) (sum Sum, pieces int) {
	t.Helper()
	from := Cursor{Table: table}
	for add := ""; ; pieces++ {
		p, ok, why, err := Next(t.Context(), conn, from)
		if err != nil || !ok {
			t.Fatalf("%v: %v %s %v", table, ok, why, err)
		}
		s, err := SumUp(t.Context(), conn, p)
		if err != nil || s.Unknown != "" {
			t.Fatalf("%v %v: %+v %v", table, p, s, err)
		}
		add += s.Add + " "
		sum.Rows, sum.Xor, sum.Add, sum.Shape = sum.Rows+s.Rows, sum.Xor^s.Xor, add, s.Shape
		if from = (Cursor{table, p.Key, p.Through}); from.After == nil {
			return sum, pieces + 1
		}
	}
}
