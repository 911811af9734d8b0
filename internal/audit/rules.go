package audit

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// noKey stands where a piece of a table's rows has its key. A member whose release knows
// no rules looks for a column of that name, finds none, and says that it cannot tell.
const noKey = "(rule)"

// The limits of what is compared by a rule.
const (
	maxRuleRows   = 10_000    // of a source; what is larger is not compared
	maxNamesBytes = 512 << 10 // of the names in a result; differences beyond have none
	maxTold       = 5         // names that a person is told
)

// source is a table of the server of which a rule chooses what is compared. The rule's
// name says what that is: a member that does not know it knows nothing of the piece, and
// who changes a source gives its rule another name.
type source struct {
	Table
	rule    string
	columns string
	where   func(ctx context.Context, s Session) (string, error) // which rows; nil: all
	// advisory: a difference is told, and nobody is judged for it.
	advisory bool
}

// sources are all, in the order in which they are compared.
func sources() []source { return slices.Concat(grantTables, definitions) }

func sourceOf(p Piece) (source, bool) {
	all := sources()
	i := slices.IndexFunc(all, func(s source) bool { return s.rule == p.Rule && s.Table == p.Table })
	if i < 0 {
		return source{}, false
	}
	return all[i], true
}

// RulePieces are the pieces that compare accounts, grants and definitions, of members
// whose server has the version of this one.
func RulePieces(ctx context.Context, s Session) ([]Piece, error) {
	version := ""
	if err := one(ctx, s, &version, "SELECT VERSION()"); err != nil {
		return nil, fmt.Errorf("read the server's version: %w", err)
	}
	var pieces []Piece
	for _, src := range sources() {
		pieces = append(pieces, Piece{Table: src.Table, Key: []string{noKey}, Rule: src.rule, Engine: version})
	}
	return pieces, nil
}

// Advisory reports whether a difference is told and nobody is judged for it.
func (p Piece) Advisory() bool {
	s, ok := sourceOf(p)
	return ok && s.advisory
}

// Line is a row that a rule chooses.
type Line struct {
	Table Table
	Name  string // of what it is about
	Text  string // the row
}

// RuleLines returns all that is compared of accounts, grants and definitions, in no order.
// Its text holds the hashes of passwords.
func RuleLines(ctx context.Context, s Session) ([]Line, error) {
	var all []Line
	for _, src := range sources() {
		lines, err := src.lines(ctx, s)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	return all, nil
}

// errManyRows says that a source is too large to be compared.
var errManyRows = fmt.Errorf("it has more than %d rows", maxRuleRows)

// row is one of a source.
type row struct {
	columns []string
	values  []sql.NullString
}

func (r row) value(column string) string {
	if i := slices.Index(r.columns, column); i >= 0 {
		return r.values[i].String
	}
	return ""
}

// text is the whole row; a column that is null is not there.
func (r row) text() string {
	var text strings.Builder
	for i, c := range r.columns {
		if v := r.values[i]; v.Valid {
			fmt.Fprintf(&text, "%s=%q ", c, v.String)
		}
	}
	return text.String()
}

// lines reads a source. An error of the server is a *mysql.MySQLError.
func (src source) lines(ctx context.Context, s Session) ([]Line, error) {
	where, err := "TRUE", error(nil)
	if src.where != nil {
		where, err = src.where(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("read %v: %w", src.Table, err)
	}
	r := row{columns: strings.Fields(src.columns)}
	var list []string
	for _, c := range r.columns {
		list = append(list, "CAST(t."+ident(c)+" AS BINARY)")
	}
	rows, err := s.QueryContext(ctx, "SELECT "+strings.Join(list, ", ")+" FROM "+src.String()+" t WHERE "+where+" LIMIT "+strconv.Itoa(maxRuleRows+1))
	if err != nil {
		return nil, fmt.Errorf("read %v: %w", src.Table, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var lines []Line
	r.values = make([]sql.NullString, len(r.columns))
	into := make([]any, len(r.columns))
	for i := range r.values {
		into[i] = &r.values[i]
	}
	for n := 1; rows.Next(); n++ {
		if n > maxRuleRows {
			return nil, fmt.Errorf("read %v: %w", src.Table, errManyRows)
		}
		if err := rows.Scan(into...); err != nil {
			return nil, fmt.Errorf("read %v: %w", src.Table, err)
		}
		if l, ok := src.line(r); ok {
			lines = append(lines, l)
		}
	}
	return lines, rows.Err()
}

// line makes a row what is compared, and reports false for one that is not.
func (src source) line(r row) (l Line, ok bool) {
	switch src.rule {
	case accountRule:
		l, ok = accountLine(src.Name, r)
	case revokeRule:
		l, ok = revokeLine(r)
	default:
		l, ok = definitionLine(r)
	}
	l.Table = src.Table
	return l, ok
}

// sum is the checksum of a line.
func (l Line) sum() uint64 {
	h := sha256.Sum256([]byte(l.Name + "\x00" + l.Text))
	return binary.LittleEndian.Uint64(h[:])
}

// Named is the checksum of all lines of a name.
type Named struct {
	Name string `json:"name"`
	Sum  uint64 `json:"sum,string"` // of the checksums, modulo 2^64
}

// sumRule sums up what a rule chooses of a table. What cannot be told is unknown.
func sumRule(ctx context.Context, s Session, p Piece) (Sum, []Named, error) {
	src, ok := sourceOf(p)
	if !ok {
		return Sum{Unknown: "it knows no rule " + p.Rule + " for it"}, nil, nil
	}
	version := ""
	if err := one(ctx, s, &version, "SELECT VERSION()"); err != nil {
		return Sum{}, nil, fmt.Errorf("read the server's version: %w", err)
	}
	if version != p.Engine {
		return Sum{Unknown: fmt.Sprintf("its server has version %s, the master's %s", version, p.Engine)}, nil, nil
	}
	lines, err := src.lines(ctx, s)
	var refused *mysql.MySQLError
	if errors.Is(err, errManyRows) || errors.As(err, &refused) {
		return Sum{Unknown: err.Error()}, nil, nil
	}
	if err != nil {
		return Sum{}, nil, err
	}
	sum, add, names := Sum{Rows: uint64(len(lines))}, uint64(0), map[string]uint64{}
	for _, l := range lines {
		c := l.sum()
		sum.Xor, add = sum.Xor^c, add+c
		names[l.Name] += c
	}
	sum.Add = strconv.FormatUint(add, 10)
	list := make([]Named, 0, len(names))
	for _, n := range slices.Sorted(maps.Keys(names)) {
		list = append(list, Named{n, names[n]})
	}
	return sum, list, nil
}

// sizeOf is about how many bytes names take in a result.
func sizeOf(names []Named) int {
	n := 0
	for _, x := range names {
		n += len(x.Name) + 50
	}
	return n
}

// differing names what is not the same in two lists that are sorted by name.
func differing(a, b []Named) []string {
	sums := map[string]uint64{}
	for _, n := range a {
		sums[n.Name] = n.Sum
	}
	var names []string
	for _, n := range b {
		if s, there := sums[n.Name]; !there || s != n.Sum {
			names = append(names, n.Name)
		}
		delete(sums, n.Name)
	}
	names = slices.AppendSeq(names, maps.Keys(sums))
	slices.Sort(names)
	return names
}

// Tell writes names for people.
func Tell(names []string) string {
	if len(names) > maxTold {
		return strings.Join(names[:maxTold], ", ") + fmt.Sprintf(" and %d more", len(names)-maxTold)
	}
	return strings.Join(names, ", ")
}
