package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Session is a session of a server; it is an *sql.Conn.
type Session interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Settings are what a session needs so that a piece means the same on every member.
const Settings = `SET SESSION time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO', transaction_isolation = 'REPEATABLE-READ',
	information_schema_stats_expiry = 0, show_gipk_in_create_table_and_information_schema = ON, optimizer_switch = DEFAULT,
	group_concat_max_len = 1048576, lock_wait_timeout = 5, collation_connection = utf8mb4_bin`

// systemSchemas are the server's own, and the agent's.
const systemSchemas = "'mysql', 'information_schema', 'performance_schema', 'sys'"

// Tables lists what is compared, in the order of Compare.
func Tables(ctx context.Context, s Session) ([]Table, error) {
	rows, err := s.QueryContext(ctx, `SELECT table_schema, table_name FROM information_schema.tables
		WHERE table_type = 'BASE TABLE' AND engine = 'InnoDB' AND table_schema NOT IN (`+systemSchemas+`)`)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var list []Table
	for rows.Next() {
		var t Table
		if err := rows.Scan(&t.Schema, &t.Name); err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		list = append(list, t)
	}
	slices.SortFunc(list, Table.Compare)
	return list, rows.Err()
}

// Estimate is about how many rows all compared tables have together, as the server
// believes.
func Estimate(ctx context.Context, s Session) (int64, error) {
	var n int64
	err := one(ctx, s, &n, `SELECT CAST(COALESCE(SUM(table_rows), 0) AS SIGNED) FROM information_schema.tables
		WHERE table_type = 'BASE TABLE' AND engine = 'InnoDB' AND table_schema NOT IN (`+systemSchemas+`)`)
	if err != nil {
		return 0, fmt.Errorf("estimate rows: %w", err)
	}
	return n, nil
}

// column is what is known of a column.
type column struct {
	name, kind, full, collation string
	key                         int // its place in the primary key, from 1
}

func columns(ctx context.Context, s Session, t Table) ([]column, error) {
	rows, err := s.QueryContext(ctx, `SELECT c.column_name, LOWER(c.data_type), c.column_type, COALESCE(c.collation_name, ''), COALESCE(k.seq_in_index, 0)
		FROM information_schema.columns c LEFT JOIN information_schema.statistics k
		ON k.table_schema = c.table_schema AND k.table_name = c.table_name AND k.column_name = c.column_name AND k.index_name = 'PRIMARY'
		WHERE c.table_schema = ? AND c.table_name = ? AND c.extra NOT LIKE '%VIRTUAL GENERATED%' ORDER BY c.ordinal_position`, t.Schema, t.Name)
	if err != nil {
		return nil, fmt.Errorf("list columns of %v: %w", t, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var list []column
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.kind, &c.full, &c.collation, &c.key); err != nil {
			return nil, fmt.Errorf("list columns of %v: %w", t, err)
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// keyColumns returns the primary key, or nothing if it cannot be cut into pieces:
// its values must be ones that mean the same in a statement as in the table.
func keyColumns(cols []column) []column {
	var key []column
	for n := 1; ; n++ {
		found := false
		for _, c := range cols {
			if c.key == n {
				if !divisible[c.kind] {
					return nil
				}
				key, found = append(key, c), true
			}
		}
		if !found {
			break
		}
	}
	if len(key) > maxKey {
		return nil
	}
	return key
}

// The kinds of columns by which tables are cut into pieces.
var (
	integers  = map[string]bool{"tinyint": true, "smallint": true, "mediumint": true, "int": true, "bigint": true}
	texts     = map[string]bool{"char": true, "varchar": true, "date": true, "datetime": true, "timestamp": true, "decimal": true}
	raws      = map[string]bool{"binary": true, "varbinary": true}
	divisible = union(integers, texts, raws)
	// large are not put into one text with the other columns: it might be too long.
	large = union(map[string]bool{
		"tinytext": true, "text": true, "mediumtext": true, "longtext": true, "tinyblob": true, "blob": true, "mediumblob": true, "longblob": true,
		"json": true, "geometry": true, "point": true, "linestring": true, "polygon": true, "multipoint": true, "multilinestring": true,
		"multipolygon": true, "geomcollection": true, "geometrycollection": true, "vector": true,
	})
)

func union(sets ...map[string]bool) map[string]bool {
	all := map[string]bool{}
	for _, s := range sets {
		for k := range s {
			all[k] = true
		}
	}
	return all
}

// Next returns the piece of a table that follows a place, the first one if the table
// has another key by now. The piece without an upper bound is the last one. It reports
// false for a table that is gone or cannot be compared; why is then not empty if it
// should be told.
func Next(ctx context.Context, s Session, from Cursor) (p Piece, ok bool, why string, err error) {
	t := from.Table
	cols, err := columns(ctx, s, t)
	if err != nil || len(cols) == 0 {
		return p, false, "", err
	}
	p.Table = t
	key := keyColumns(cols)
	if len(key) == 0 {
		var rows int64
		if err := one(ctx, s, &rows, "SELECT COUNT(*) FROM (SELECT 1 FROM "+name(t)+" LIMIT "+strconv.Itoa(PieceRows+1)+") x"); err != nil {
			return p, false, "", err
		}
		if rows > PieceRows {
			return p, false, "it has no primary key that can be cut into pieces, and many rows", nil
		}
		return p, true, "", nil
	}
	var list []string
	for _, c := range key {
		p.Key = append(p.Key, c.name)
		list = append(list, ident(c.name))
	}
	if from.fits(key) {
		p.After = from.After
	}
	where, args := bounds(p)
	order := strings.Join(list, ", ")
	rows, err := s.QueryContext(ctx, "SELECT "+order+" FROM "+name(t)+" FORCE INDEX (PRIMARY) WHERE "+where+" ORDER BY "+order+" LIMIT 1 OFFSET "+strconv.Itoa(PieceRows-1), args...)
	if err != nil {
		return p, false, "", fmt.Errorf("cut %v: %w", t, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	if rows.Next() {
		if p.Through, err = scanKey(rows, key); err != nil {
			return p, false, "", fmt.Errorf("cut %v: %w", t, err)
		}
		for _, v := range p.Through {
			if len(v.Raw) > maxValue || v.Text != nil && len(*v.Text) > maxValue {
				return p, false, "its primary key is too long", nil
			}
		}
	}
	return p, true, "", rows.Err()
}

// fits reports whether the place is one in the order of a key.
func (c Cursor) fits(key []column) bool {
	if len(c.Key) != len(key) || len(c.After) != len(key) {
		return false
	}
	for i, k := range key {
		v := c.After[i]
		if c.Key[i] != k.name || (v.Int != nil) != integers[k.kind] || (v.Text != nil) != texts[k.kind] {
			return false
		}
	}
	return true
}

func scanKey(rows *sql.Rows, key []column) ([]Value, error) {
	raw := make([]sql.RawBytes, len(key))
	into := make([]any, len(key))
	for i := range raw {
		into[i] = &raw[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	var vs []Value
	for i, c := range key {
		text := string(raw[i])
		switch {
		case integers[c.kind]:
			vs = append(vs, Value{Int: &text})
		case raws[c.kind]:
			vs = append(vs, Value{Raw: append([]byte{}, raw[i]...)})
		default:
			vs = append(vs, Value{Text: &text})
		}
	}
	return vs, nil
}

// arg is the value as the driver sends it.
func (v Value) arg() any {
	switch {
	case v.Int != nil:
		if n, err := strconv.ParseInt(*v.Int, 10, 64); err == nil {
			return n
		}
		n, _ := strconv.ParseUint(*v.Int, 10, 64) // what is no number bounds nothing: the sums then differ in rows, and a second look too
		return n
	case v.Text != nil:
		return *v.Text
	case v.Raw == nil:
		return []byte{}
	}
	return v.Raw
}

// bounds is the condition of a piece. Rows are compared column by column, because the
// server finds no index for the comparison of whole rows.
func bounds(p Piece) (where string, args []any) {
	parts := []string{"TRUE"}
	above := func(key []Value) string {
		var alternatives []string
		for n := range key {
			var terms []string
			for i := range n {
				terms = append(terms, ident(p.Key[i])+" = ?")
				args = append(args, key[i].arg())
			}
			terms = append(terms, ident(p.Key[n])+" > ?")
			args = append(args, key[n].arg())
			alternatives = append(alternatives, "("+strings.Join(terms, " AND ")+")")
		}
		return strings.Join(alternatives, " OR ")
	}
	if p.After != nil {
		parts = append(parts, "("+above(p.After)+")")
	}
	if p.Through != nil {
		parts = append(parts, "NOT ("+above(p.Through)+")", ident(p.Key[0])+" <= ?")
		args = append(args, p.Through[0].arg())
	}
	return strings.Join(parts, " AND "), args
}

// rowSum is the expression of a row's checksum.
func rowSum(cols []column) string {
	var parts, nulls []string
	for _, c := range cols {
		col := ident(c.name)
		nulls = append(nulls, "ISNULL("+col+")")
		switch {
		case large[c.kind]:
			col = "CRC32(" + col + ")"
		case c.kind == "bit":
			col = "HEX(" + col + ")"
		case c.kind == "float" || c.kind == "double":
			col = "HEX(CAST(" + col + " AS CHAR))"
		default:
			col = "CAST(" + col + " AS BINARY)"
		}
		parts = append(parts, col)
	}
	return "CRC32(CONCAT_WS('#', " + strings.Join(parts, ", ") + ", CONCAT(" + strings.Join(nulls, ", ") + ")))"
}

// SumUp sums up the rows of a piece without a rule. A table that is not there is missing;
// what cannot be told is unknown and no error. An error says that the session is lost.
func SumUp(ctx context.Context, s Session, p Piece) (Sum, error) {
	cols, err := columns(ctx, s, p.Table)
	if err != nil {
		return Sum{}, err
	}
	if len(cols) == 0 {
		return Sum{Missing: true}, nil
	}
	have := map[string]bool{}
	shape := crc32.NewIEEE()
	for _, c := range cols {
		have[c.name] = true
		fmt.Fprintf(shape, "%q %q %q %d\n", c.name, c.full, c.collation, c.key)
	}
	sum := Sum{Shape: shape.Sum32()}
	for _, k := range p.Key {
		if !have[k] {
			sum.Unknown = keyChanged
			return sum, nil
		}
	}
	where, args := bounds(p)
	force := ""
	if len(p.Key) > 0 {
		force = " FORCE INDEX (PRIMARY)"
	}
	rows, err := s.QueryContext(ctx, "SELECT COUNT(*), COALESCE(BIT_XOR(c), 0), COALESCE(SUM(c), 0) FROM (SELECT "+rowSum(cols)+" AS c FROM "+
		name(p.Table)+force+" WHERE "+where+") x", args...)
	if err == nil {
		defer rows.Close() //nolint:errcheck // rows.Err says it
		if rows.Next() {
			err = rows.Scan(&sum.Rows, &sum.Xor, &sum.Add)
		}
		err = errors.Join(err, rows.Err())
	}
	var refused *mysql.MySQLError
	if errors.As(err, &refused) {
		return Sum{Unknown: refused.Error()}, nil // it was changed since the snapshot, mostly
	}
	if err != nil {
		return Sum{}, fmt.Errorf("sum up %v: %w", p.Table, err)
	}
	return sum, nil
}

// SumAll sums all pieces up, with pauses, so that no more than rate rows are read in a
// second. Naming asks for the names in pieces with a rule, as far as there is room.
func SumAll(ctx context.Context, s Session, pieces []Piece, rate int, naming bool) (Result, error) {
	res, room := Result{}, maxNamesBytes
	for i, p := range pieces {
		began := time.Now()
		var sum Sum
		var names []Named
		var err error
		if p.Rule != "" {
			sum, names, err = sumRule(ctx, s, p)
		} else {
			sum, err = SumUp(ctx, s, p)
		}
		if err != nil {
			return res, err
		}
		res.Sums = append(res.Sums, sum)
		if naming && p.Rule != "" && sum.Unknown == "" {
			if room -= sizeOf(names); room >= 0 {
				if res.Named == nil {
					res.Named = map[int][]Named{}
				}
				res.Named[i] = names
			}
		}
		pause := time.Duration(sum.Rows)*time.Second/time.Duration(max(rate, 1)) - time.Since(began)
		if err := rest(ctx, pause); err != nil {
			return res, err
		}
	}
	return res, nil
}

// rest waits.
func rest(ctx context.Context, pause time.Duration) error {
	if pause <= 0 {
		return nil
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func one(ctx context.Context, s Session, into any, query string) error {
	rows, err := s.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	if rows.Next() {
		if err := rows.Scan(into); err != nil {
			return err
		}
	}
	return rows.Err()
}

func name(t Table) string { return ident(t.Schema) + "." + ident(t.Name) }

func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
