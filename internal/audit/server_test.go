package audit

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/mysqld"
)

// server starts a real server and returns a session of it that writes past the binlog,
// as nobody confirms commits here.
func server(t *testing.T) *sql.Conn {
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
	conn := server(t)
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
