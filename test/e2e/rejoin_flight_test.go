package e2e

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/phxsql/phxsql/paxos"
)

// session is one client: what it does before, and the statement that is in flight.
type session struct {
	before []string
	last   string
}

// flight is what is in flight when a node dies. With a master that is something that no
// other node has, unless chosen says otherwise; with a follower, the master and the other
// follower go on with it.
type flight struct {
	name     string
	setup    func(schema string) []string
	sessions func(schema string) []session
	clean    func(schema string) []string
	load     bool           // the checker's workload runs, and goes on
	chosen   bool           // the others may have it
	oneWaits bool           // on a master only one of the sessions can wait at a time
	after    paxos.Instance // how many values of it are chosen when the node dies
	// prepared are the XA transactions that are prepared at the end, in order.
	prepared func(done bool) []string
	verify   func(a *attempt)
}

func dropSchema(s string) []string {
	return []string{"DROP DATABASE IF EXISTS " + s, "DROP DATABASE IF EXISTS " + s + "_b", "DROP DATABASE IF EXISTS " + s + "_c"}
}

func lasts(statements ...string) []session {
	var list []session
	for _, q := range statements {
		list = append(list, session{last: q})
	}
	return list
}

// turn has the cells take turns among n kinds.
func turn(schema string, n int) int {
	sum := 0
	for _, c := range schema {
		sum += int(c)
	}
	return sum % n
}

var (
	nothingFlies = flight{name: "nothing"}
	workload     = flight{name: "writes of many clients", load: true, chosen: true}
	tableDDL     = flight{
		name: "DDL of tables, ten kinds at once", clean: dropSchema,
		setup: func(s string) []string {
			list := []string{"CREATE DATABASE " + s}
			for i := range 8 {
				list = append(list, fmt.Sprintf("CREATE TABLE %s.t%d (id INT PRIMARY KEY, v VARCHAR(20))", s, i),
					fmt.Sprintf("INSERT INTO %s.t%d VALUES (1, 'one'), (2, 'two'), (3, 'three')", s, i))
			}
			return append(list, "CREATE TABLE "+s+".p (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))",
				"INSERT INTO "+s+".p VALUES (1), (11)")
		},
		sessions: func(s string) []session {
			return lasts("CREATE TABLE "+s+".new (id INT PRIMARY KEY)", "CREATE TABLE "+s+".copied AS SELECT * FROM "+s+".t0",
				"DROP TABLE "+s+".t1", "ALTER TABLE "+s+".t2 ADD COLUMN w INT, ALGORITHM=INSTANT", "ALTER TABLE "+s+".t3 ADD INDEX (v), ALGORITHM=INPLACE",
				"ALTER TABLE "+s+".t4 MODIFY v TEXT, ALGORITHM=COPY", "RENAME TABLE "+s+".t5 TO "+s+".z5", "TRUNCATE TABLE "+s+".t6",
				"ALTER TABLE "+s+".p TRUNCATE PARTITION p0", "CREATE INDEX late ON "+s+".t7 (v)")
		},
	}
	objectDDL = flight{
		name: "DDL of other objects, nine kinds at once", clean: dropSchema,
		setup: func(s string) []string {
			return []string{"CREATE DATABASE " + s, "CREATE DATABASE " + s + "_b", "CREATE TABLE " + s + "_b.t (id INT PRIMARY KEY)",
				"CREATE TABLE " + s + ".t (id INT PRIMARY KEY)", "CREATE TABLE " + s + ".u (id INT PRIMARY KEY)", "CREATE VIEW " + s + ".old AS SELECT 1",
				"CREATE FUNCTION " + s + ".f() RETURNS INT DETERMINISTIC RETURN 1", "CREATE EVENT " + s + ".old ON SCHEDULE EVERY 1 DAY DO DELETE FROM " + s + ".t WHERE id < 0"}
		},
		sessions: func(s string) []session {
			return lasts("CREATE VIEW "+s+".v AS SELECT * FROM "+s+".t", "DROP VIEW "+s+".old", "CREATE PROCEDURE "+s+".p() SELECT 1", "DROP FUNCTION "+s+".f",
				"CREATE TRIGGER "+s+".tr BEFORE INSERT ON "+s+".u FOR EACH ROW SET @x = 1", "CREATE EVENT "+s+".e ON SCHEDULE EVERY 1 DAY DO DELETE FROM "+s+".t WHERE id < 0",
				"CREATE DATABASE "+s+"_c", "DROP DATABASE "+s+"_b", "DROP EVENT "+s+".old")
		},
	}
	// A server executes one statement about accounts at a time: the cells take turns.
	accountDDL = flight{
		name: "a statement about accounts",
		clean: func(s string) []string {
			return append(dropSchema(s), "DROP USER IF EXISTS "+s+"_u, "+s+"_late", "DROP ROLE IF EXISTS "+s+"_r")
		},
		setup: func(s string) []string {
			return []string{"CREATE DATABASE " + s, "CREATE USER " + s + "_u IDENTIFIED BY 'x'", "CREATE ROLE " + s + "_r"}
		},
		sessions: func(s string) []session {
			kinds := []string{"CREATE USER " + s + "_late IDENTIFIED BY 'x'", "GRANT SELECT ON " + s + ".* TO " + s + "_u", "DROP ROLE " + s + "_r", "GRANT " + s + "_r TO " + s + "_u"}
			return lasts(kinds[turn(s, len(kinds))])
		},
	}
	xaFlight = flight{
		name: "XA PREPARE, COMMIT or ROLLBACK", clean: dropSchema, oneWaits: true,
		setup: func(s string) []string {
			list := []string{"CREATE DATABASE " + s, "CREATE TABLE " + s + ".t (id INT PRIMARY KEY)"}
			for i, id := range []string{"'a'", "'b'", "'c'"} {
				list = append(list, "XA START "+id, fmt.Sprintf("INSERT INTO %s.t VALUES (%d)", s, i), "XA END "+id, "XA PREPARE "+id)
			}
			return list
		},
		sessions: func(s string) []session {
			return []session{{last: "XA COMMIT 'a'"}, {last: "XA ROLLBACK 'b'"},
				{before: []string{"XA START 'd'", "INSERT INTO " + s + ".t VALUES (10)", "XA END 'd'"}, last: "XA PREPARE 'd'"}}
		},
		prepared: func(done bool) []string {
			if done {
				return []string{"c", "d"}
			}
			return []string{"a", "b", "c"}
		},
	}
	manyGroups = flight{
		name: "forty groups of transactions", clean: dropSchema,
		setup: func(s string) []string {
			return []string{"CREATE DATABASE " + s, "CREATE TABLE " + s + ".t (id INT PRIMARY KEY, v INT NOT NULL)"}
		},
		sessions: func(s string) []session {
			var list []session
			for i := range 40 {
				list = append(list, session{
					before: []string{"BEGIN", fmt.Sprintf("INSERT INTO %s.t VALUES (%d, 0)", s, i), fmt.Sprintf("UPDATE %s.t SET v = 1 WHERE id = %d", s, i)},
					last:   "COMMIT",
				})
			}
			return list
		},
	}
	largeFlight = flight{
		name: "a transaction of 200 MB", chosen: true, after: 10, clean: dropSchema,
		setup: func(s string) []string {
			return []string{"CREATE DATABASE " + s, "CREATE TABLE " + s + ".t (id INT PRIMARY KEY, v LONGBLOB NOT NULL)"}
		},
		sessions: func(s string) []session {
			var rows []string
			for i := range largeRows {
				rows = append(rows, fmt.Sprintf("(%d, REPEAT(CHAR(%d), 1048576))", i, 65+i%26))
			}
			return lasts("INSERT INTO " + s + ".t VALUES " + strings.Join(rows, ","))
		},
		verify: func(a *attempt) {
			got := column(a.t, a.ctx, a.c, a.node, "SELECT COUNT(*) FROM "+a.schema+".t", 0)[0]
			whole := fmt.Sprint(largeRows)
			if got != whole && (got != "0" || a.told[0] == nil) {
				a.t.Errorf("there are %s of %s rows; the client was told %v", got, whole, a.told[0])
			}
		},
	}
	flights = []flight{nothingFlies, workload, tableDDL, objectDDL, accountDDL, xaFlight, manyGroups, largeFlight}
)

// largeRows of 1 MiB each are in a large transaction.
const largeRows = 200

// connect opens the sessions through the master's read-write port and has each do what
// comes before.
func (a *attempt) connect(sessions []session) (conns []*sql.Conn, close func()) {
	a.t.Helper()
	db, err := a.c.Open(a.master.RW, "")
	if err != nil {
		a.t.Fatal(err)
	}
	for _, s := range sessions {
		conn, err := db.Conn(a.ctx)
		if err != nil {
			a.t.Fatal(err)
		}
		conns = append(conns, conn)
		for _, q := range s.before {
			if _, err := conn.ExecContext(a.ctx, q); err != nil {
				a.t.Fatalf("%s: %v", q, err)
			}
		}
	}
	return conns, func() { db.Close() }
}

// run sends the last statements of all sessions.
func (a *attempt) run(sessions []session, conns []*sql.Conn) {
	a.told, a.ended = make([]error, len(sessions)), make(chan struct{})
	told, ended := a.told, a.ended
	var wg sync.WaitGroup
	for i, s := range sessions {
		wg.Go(func() { _, told[i] = conns[i].ExecContext(a.ctx, s.last) })
	}
	go func() {
		wg.Wait()
		for _, c := range conns {
			c.Close()
		}
		close(ended)
	}()
}

// stranded waits until every session waits in its commit. It reports false when the
// server, or a session, has ended before.
func (a *attempt) stranded(sessions []session) bool {
	a.t.Helper()
	db := inside(a.t, a.node)
	defer db.Close()
	return awaitWaiting(a.ctx, db, a.c.User, len(sessions), a.ended, &a.seen)
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
