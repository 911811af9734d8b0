package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/engine"
)

// clientArgs lead a MySQL client program to a port.
func clientArgs(t *testing.T, c *drill.Cluster, addr string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "client.cnf")
	text := fmt.Sprintf("[client]\nhost=%s\nport=%s\nprotocol=tcp\nuser=%s\npassword=%s\nget-server-public-key\n[mysql]\nlocal-infile=1\n", host, port, c.User, c.Password)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--defaults-file=" + conf}
}

// pipe runs a client program with an input and returns its output.
func pipe(t *testing.T, cmd *exec.Cmd, in string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s", cmd.Args[len(cmd.Args)-1], err, errs.String())
	}
	return out.String()
}

func mysqlClient(t *testing.T, ctx context.Context, c *drill.Cluster, addr, script string, extra ...string) string {
	t.Helper()
	args := append(clientArgs(t, c, addr), append([]string{"--batch", "--skip-column-names"}, extra...)...)
	return pipe(t, install.Command(ctx, "mysql", args...), script)
}

// settled waits until every node has everything, and that it is the same.
func settled(t *testing.T, c *drill.Cluster) {
	t.Helper()
	ctx := limit(t, 2*time.Minute)
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Compare(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestOrdinaryClients(t *testing.T) {
	c := start(t, drill.Options{})
	ctx := limit(t, 5*time.Minute)
	// No client may lose its connection here. A lease that bulk starves is starved for the
	// many seconds that 200 MB take; one of 900 ms can also end for want of a processor.
	if _, err := c.Run(ctx, "config", "set", "consensus.lease", "4s"); err != nil {
		t.Fatal(err)
	}

	t.Run("mysql through every port, with and without TLS", func(t *testing.T) {
		for _, n := range c.Nodes {
			for _, mode := range []string{"DISABLED", "REQUIRED"} {
				for _, addr := range []string{n.RW, n.RO} {
					if got := mysqlClient(t, ctx, c, addr, "SELECT 6*7;", "--ssl-mode="+mode); got != "42\n" {
						t.Errorf("node %d, %s, TLS %s: %q", n.ID, addr, mode, got)
					}
				}
			}
		}
	})
	t.Run("schema, accounts, routines, events, files", func(t *testing.T) { everyday(t, ctx, c) })
	t.Run("a transaction of 200 MB", func(t *testing.T) { large(t, ctx, c) })
	t.Run("mysqldump and back", func(t *testing.T) { dump(t, ctx, c) })
	t.Run("sysbench", func(t *testing.T) { sysbench(t, ctx, c) })
}

// everyday does what applications and their administrators do.
func everyday(t *testing.T, ctx context.Context, c *drill.Cluster) {
	file := filepath.Join(t.TempDir(), "rows.csv")
	var rows strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&rows, "%d,name%d\n", i+1, i)
	}
	if err := os.WriteFile(file, []byte(rows.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `
CREATE DATABASE shop;
USE shop;
CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40), INDEX (name));
LOAD DATA LOCAL INFILE '` + file + `' INTO TABLE item FIELDS TERMINATED BY ',' (id, name);
ALTER TABLE item ADD COLUMN price DECIMAL(10,2) NOT NULL DEFAULT 1.5;
CREATE TABLE no_key (a INT, b TEXT);
INSERT INTO no_key SELECT id, name FROM item LIMIT 100;
UPDATE no_key SET b = CONCAT(b, '!') WHERE a % 2 = 0;
CREATE TABLE copy AS SELECT * FROM item;
CREATE VIEW cheap AS SELECT * FROM item WHERE price < 2;
CREATE TRIGGER stamp BEFORE INSERT ON item FOR EACH ROW SET NEW.name = UPPER(NEW.name);
DELIMITER //
CREATE PROCEDURE fill(n INT) BEGIN WHILE n > 0 DO INSERT INTO item (name) VALUES ('p'); SET n = n - 1; END WHILE; END //
CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN 2 * n //
DELIMITER ;
CALL fill(20);
CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY DO DELETE FROM copy WHERE id < 0;
CREATE USER 'reader'@'%' IDENTIFIED BY 'r3ader!';
GRANT SELECT ON shop.* TO 'reader'@'%';
XA START 'x'; INSERT INTO item (name) VALUES ('xa'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x';
START TRANSACTION; INSERT INTO item (name) VALUES ('gone'); ROLLBACK;
CREATE TEMPORARY TABLE tmp (a INT); INSERT INTO tmp VALUES (1);
LOCK TABLES item WRITE; INSERT INTO item (name) VALUES ('locked'); UNLOCK TABLES;
SELECT COUNT(*), twice(21) FROM item;
`
	got := mysqlClient(t, ctx, c, c.Nodes[1].RW, script)
	if got != "5022\t42\n" {
		t.Errorf("the script printed %q", got)
	}
	settled(t, c)
}

// large commits one transaction of 200 MB.
func large(t *testing.T, ctx context.Context, c *drill.Cluster) {
	script := `
CREATE DATABASE big; USE big;
CREATE TABLE blobs (id INT PRIMARY KEY, v LONGBLOB);
SET SESSION cte_max_recursion_depth = 10000;
INSERT INTO blobs WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i, REPEAT(CHAR(65 + i % 26), 1048576) FROM n;
SELECT COUNT(*), SUM(LENGTH(v)) FROM blobs;
`
	if got := mysqlClient(t, ctx, c, c.Nodes[0].RW, script); got != "200\t209715200\n" {
		t.Errorf("the script printed %q", got)
	}
	settled(t, c)
}

// dump takes a schema out and in again.
func dump(t *testing.T, ctx context.Context, c *drill.Cluster) {
	args := append(clientArgs(t, c, c.Nodes[2].RW), "--single-transaction", "--routines", "--triggers", "--set-gtid-purged=OFF", "--no-tablespaces", "shop")
	text := pipe(t, install.Command(ctx, "mysqldump", args...), "")
	mysqlClient(t, ctx, c, c.Nodes[0].RW, "CREATE DATABASE shop2; USE shop2;\n"+text)
	got := mysqlClient(t, ctx, c, c.Nodes[0].RW, "SELECT (SELECT COUNT(*) FROM shop.item) = (SELECT COUNT(*) FROM shop2.item);")
	if got != "1\n" {
		t.Errorf("the copy has another number of rows: %q", got)
	}
	settled(t, c)
}

func sysbench(t *testing.T, ctx context.Context, c *drill.Cluster) {
	tool, err := engine.FetchTool(ctx, "sysbench")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(ctx, "CREATE DATABASE sbtest"); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(c.Nodes[1].RW)
	for _, step := range [][]string{
		{"oltp_read_write", "prepare"}, {"oltp_read_write", "run"}, {"oltp_insert", "run"}, {"oltp_point_select", "run"},
	} {
		args := []string{step[0], "--db-driver=mysql", "--mysql-host=" + host, "--mysql-port=" + port, "--mysql-user=" + c.User, "--mysql-password=" + c.Password,
			"--tables=2", "--table-size=2000", "--threads=8", "--time=3", step[1]}
		out, err := tool.Command(ctx, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("sysbench %s %s: %v: %s", step[0], step[1], err, out)
		}
	}
	settled(t, c)
}
