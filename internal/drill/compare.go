package drill

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/phxsql/phxsql/internal/audit"
)

// Compare checks that all nodes hold the same: tables row by row, what made
// them, accounts, routines, views, triggers, and the GTID sets. The cluster must
// be well and nobody writing.
func (c *Cluster) Compare(ctx context.Context) error {
	first := ""
	for _, n := range c.withData() {
		text, err := c.Portrait(ctx, n)
		if err != nil {
			return fmt.Errorf("read node %d: %w", n.ID, err)
		}
		if first == "" {
			first = text
			continue
		}
		if text != first {
			return fmt.Errorf("nodes %d and %d differ:\n%s", c.Nodes[0].ID, n.ID, Difference(first, text))
		}
	}
	return nil
}

// Difference lists the lines that only one of two texts has.
func Difference(a, b string) string {
	in := func(lines []string) map[string]bool {
		m := map[string]bool{}
		for _, l := range lines {
			m[l] = true
		}
		return m
	}
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	ina, inb := in(as), in(bs)
	var out []string
	for _, l := range as {
		if !inb[l] {
			out = append(out, "- "+l)
		}
	}
	for _, l := range bs {
		if !ina[l] {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out[:min(20, len(out))], "\n")
}

// portraits are queries whose answers must be the same everywhere. Accounts, grants,
// routines and triggers are compared as audits do.
var portraits = []string{
	"SELECT @@GLOBAL.gtid_executed",
	"SELECT table_schema, table_name, table_type, engine FROM information_schema.tables WHERE table_schema NOT IN ('mysql','sys','information_schema','performance_schema') ORDER BY 1, 2",
	"SELECT table_schema, table_name, column_name, ordinal_position, column_type, is_nullable, column_default FROM information_schema.columns WHERE table_schema NOT IN ('mysql','sys','information_schema','performance_schema') ORDER BY 1, 2, 4",
	"SELECT table_schema, table_name, view_definition FROM information_schema.views WHERE table_schema NOT IN ('mysql','sys') ORDER BY 1, 2",
	"SELECT event_schema, event_name, event_definition FROM information_schema.events ORDER BY 1, 2",
	"SELECT table_schema, table_name, index_name, seq_in_index, column_name, non_unique FROM information_schema.statistics WHERE table_schema NOT IN ('mysql','sys','information_schema','performance_schema') ORDER BY 1, 2, 3, 4",
	// Those on routines that do not exist, too, which audits leave out.
	"SELECT db, user, host, routine_name, routine_type, proc_priv FROM mysql.procs_priv ORDER BY 1, 2, 3, 4",
}

// Portrait describes everything a node holds, as text.
func (c *Cluster) Portrait(ctx context.Context, n *Node) (string, error) {
	db, err := c.Open(n.RO, "")
	if err != nil {
		return "", err
	}
	defer db.Close()
	var out strings.Builder
	for _, q := range portraits {
		lines, err := query(ctx, db, q)
		if err != nil {
			return "", fmt.Errorf("%s: %w", q, err)
		}
		out.WriteString(strings.Join(lines, "\n") + "\n")
	}
	ruled, err := audit.RuleLines(ctx, db)
	if err != nil {
		return "", err
	}
	lines := make([]string, len(ruled))
	for i, l := range ruled {
		lines[i] = l.Table.String() + " | " + l.Name + " | " + l.Text
	}
	slices.Sort(lines)
	out.WriteString(strings.Join(lines, "\n") + "\n")
	sums, err := checksums(ctx, db, "table_schema NOT IN ('mysql','sys','information_schema','performance_schema')")
	if err != nil {
		return "", err
	}
	return out.String() + sums, nil
}

// checksums are those of all tables that a condition on information_schema.tables chooses.
func checksums(ctx context.Context, db *sql.DB, which string) (string, error) {
	tables, err := query(ctx, db, "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND "+which+" ORDER BY 1")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, t := range tables {
		sum, err := query(ctx, db, "CHECKSUM TABLE "+t+" EXTENDED")
		if err != nil {
			return "", err
		}
		out.WriteString(strings.Join(sum, "\n") + "\n")
	}
	return out.String(), nil
}

// query returns the rows of a query, a line each.
func query(ctx context.Context, db *sql.DB, q string) ([]string, error) {
	rows, err := db.QueryContext(ctx, q)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var out []string
	vals := make([]sql.NullString, len(cols))
	ptrs := make([]any, len(cols))
	for i := range vals {
		ptrs[i] = &vals[i]
	}
	for rows.Next() {
		if err := rows.Scan(ptrs...); err != nil {
			return nil, err
		}
		var line []string
		for _, v := range vals {
			line = append(line, v.String)
		}
		out = append(out, strings.Join(line, " | "))
	}
	return out, rows.Err()
}
