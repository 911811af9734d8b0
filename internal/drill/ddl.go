package drill

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	mysql "github.com/go-sql-driver/mysql"
)

// The storm of definitions.
const (
	ddlSchema = "storm"
	ddlPause  = 200 * time.Millisecond
	ddlLimit  = 15 * time.Second // of one statement
)

// ddl makes, changes and drops what a schema can hold, and accounts with grants, one
// statement at a time. What members hold at the end is compared by Cluster.Compare;
// Judge only looks for what was acknowledged last.
type ddl struct {
	*crew
	site  Site
	round int

	mu                            sync.Mutex
	kept, dropped                 []string // tables whose last statement was acknowledged
	acknowledged, refused, unsure int
}

func startDDL(ctx context.Context, s Site) (Load, error) {
	if err := prepare(ctx, s.Target, "CREATE DATABASE IF NOT EXISTS "+ddlSchema); err != nil {
		return nil, err
	}
	d := &ddl{crew: newCrew(ctx), site: s}
	// One client only, so that names and their order are its own; it takes the first port.
	return d, d.client(s, s.Target.Ports()[0].RW, ddlSchema, ddlPause, d.storm)
}

// madeAt is the step that makes the table of a round.
const madeAt = 1

// steps are the statements of a round.
func (d *ddl) steps(n int) []string {
	t, u, other := fmt.Sprintf("t%d", n), fmt.Sprintf("'storm%d'@'%%'", n), fmt.Sprintf("%s%d", ddlSchema, n)
	return []string{
		// It changes nothing. A member that repeats it later drops the table that comes now.
		"DROP TABLE IF EXISTS " + t,
		"CREATE TABLE " + t + " (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(40) DEFAULT 'x')",
		"INSERT INTO " + t + " (a) VALUES (1), (2), (3)",
		"CREATE USER " + u + " IDENTIFIED BY 'storm'",
		"GRANT SELECT, INSERT ON storm." + t + " TO " + u,
		"ALTER TABLE " + t + " ADD COLUMN c INT NOT NULL DEFAULT 7, ALGORITHM=INSTANT",
		"CREATE PROCEDURE p" + fmt.Sprint(n) + "(x INT) INSERT INTO " + t + " (a) VALUES (x)",
		"GRANT EXECUTE ON PROCEDURE storm.p" + fmt.Sprint(n) + " TO " + u,
		"CALL p" + fmt.Sprint(n) + "(4)",
		"ALTER TABLE " + t + " ADD INDEX by_a (a), ALGORITHM=INPLACE",
		"CREATE VIEW v" + fmt.Sprint(n) + " AS SELECT a, c FROM " + t,
		"CREATE TRIGGER g" + fmt.Sprint(n) + " BEFORE INSERT ON " + t + " FOR EACH ROW SET NEW.c = NEW.a + 1",
		"INSERT INTO " + t + " (a) VALUES (5)",
		"ALTER TABLE " + t + " MODIFY b TEXT, ALGORITHM=COPY",
		"CREATE ROLE r" + fmt.Sprint(n),
		"GRANT UPDATE ON storm.* TO r" + fmt.Sprint(n),
		"GRANT r" + fmt.Sprint(n) + " TO " + u,
		"SET DEFAULT ROLE r" + fmt.Sprint(n) + " TO " + u,
		"GRANT SELECT, XA_RECOVER_ADMIN ON *.* TO " + u,
		"REVOKE SELECT ON storm.* FROM " + u, // a partial revoke
		"CREATE TABLE c" + fmt.Sprint(n) + " AS SELECT * FROM " + t,
		"REVOKE INSERT ON storm." + t + " FROM " + u,
		"TRUNCATE TABLE c" + fmt.Sprint(n),
		"RENAME TABLE c" + fmt.Sprint(n) + " TO e" + fmt.Sprint(n),
		"ALTER USER " + u + " ACCOUNT LOCK",
		// Dropping a database leaves what is granted on its routines.
		"CREATE DATABASE " + other,
		"CREATE PROCEDURE " + other + ".p() SELECT 1",
		"GRANT EXECUTE ON PROCEDURE " + other + ".p TO " + u,
		"DROP DATABASE " + other,
		"DROP TABLE e" + fmt.Sprint(n),
	}
}

// undo are the statements that end every second round.
func (d *ddl) undo(n int) []string {
	return []string{
		fmt.Sprintf("DROP VIEW v%d", n), fmt.Sprintf("DROP PROCEDURE p%d", n), fmt.Sprintf("DROP TRIGGER g%d", n),
		fmt.Sprintf("DROP ROLE r%d", n), fmt.Sprintf("DROP USER 'storm%d'@'%%'", n), fmt.Sprintf("DROP TABLE t%d", n),
	}
}

// storm is one round. A statement that the server refuses, because what it needs was
// lost with an unknown one, is no failure.
func (d *ddl) storm(conn *sql.Conn) error {
	d.round++
	steps := d.steps(d.round)
	if d.round%2 == 0 {
		steps = append(steps, d.undo(d.round)...)
	}
	table := fmt.Sprintf("t%d", d.round)
	for i, q := range steps {
		d.site.Pace.wait(d.ctx)
		o, err := d.statement(conn, q)
		d.mu.Lock()
		switch {
		case o == Acknowledged && i == madeAt:
			d.kept = append(d.kept, table)
		case i == len(steps)-1 && d.round%2 == 0 && len(d.kept) > 0 && d.kept[len(d.kept)-1] == table && o != Refused:
			d.kept = d.kept[:len(d.kept)-1] // the DROP TABLE was sent
			if o == Acknowledged {
				d.dropped = append(d.dropped, table)
			}
		}
		d.mu.Unlock()
		if o == Unknown {
			return err
		}
		if d.ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

func (d *ddl) statement(conn *sql.Conn, q string) (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ddlLimit)
	defer cancel()
	begin := d.site.Rec.Now()
	_, err := conn.ExecContext(ctx, q)
	o := classify(err)
	var said *mysql.MySQLError
	if o == Unknown && errors.As(err, &said) && said.Number != codeShutdown && said.Number != codeInterrupted {
		o = Refused // such as: no such table
	}
	d.site.Rec.Write("ddl", begin, d.site.Rec.Now(), o, q, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch o {
	case Acknowledged:
		d.acknowledged++
	case Refused:
		d.refused++
	default:
		d.unsure++
	}
	return o, err
}

// The errors of a server that leave open what was done.
const (
	codeShutdown    = 1053
	codeInterrupted = 1317
)

// Judge looks for the tables whose making or dropping was acknowledged.
func (d *ddl) Judge(ctx context.Context) (Finding, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := Finding{Load: "ddl", Acked: d.acknowledged, Facts: fmt.Sprintf("%d statements acknowledged, %d refused, %d unknown", d.acknowledged, d.refused, d.unsure)}
	for _, p := range d.site.Target.Ports() {
		db, err := d.site.Target.Open(p.RO, "")
		if err != nil {
			return f, err
		}
		names, err := query(ctx, db, "SELECT table_name FROM information_schema.tables WHERE table_schema = '"+ddlSchema+"'")
		db.Close()
		if err != nil {
			return f, fmt.Errorf("read tables of node %d: %w", p.Node, err)
		}
		there := map[string]bool{}
		for _, n := range names {
			there[n] = true
		}
		for _, t := range d.kept {
			if !there[t] {
				f.Wrong = append(f.Wrong, fmt.Sprintf("node %d: table %s was made and is not there", p.Node, t))
			}
		}
		for _, t := range d.dropped {
			if there[t] {
				f.Wrong = append(f.Wrong, fmt.Sprintf("node %d: table %s was dropped and is there", p.Node, t))
			}
		}
	}
	return f, nil
}
