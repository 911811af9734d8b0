package audit

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/phxsql/phxsql/paxos"
)

// Attributes of an account that mean the same are the same.
func TestAttributes(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		same       bool
	}{
		{"partial revokes", `{"Restrictions": [{"Database": "a", "Privileges": ["SELECT"]}]}`, ``, true},
		{"none", ``, `{}`, true},
		{"a second password", `{"additional_password": "x"}`, `{}`, false},
		{"limits of failed logins", `{"Password_locking": {"failed_login_attempts": 3}}`, `{"Password_locking": {"failed_login_attempts": 4}}`, false},
		{"a factor that is being registered", `{"multi_factor_authentication": [{"authentication_string": "random"}]}`, ``, true},
		{"a comment", `{"metadata": {"comment": "x"}}`, `{}`, true},
		{"no object", `[1]`, `[2]`, false},
	} {
		of := func(text string) sql.NullString {
			return attributes(sql.NullString{String: text, Valid: text != ""})
		}
		if a, b := of(c.a), of(c.b); (a == b) != c.same {
			t.Errorf("%s: %q and %q", c.name, a.String, b.String)
		}
	}
}

// Partial revokes are the same in any order.
func TestPartialRevokes(t *testing.T) {
	of := func(text string) string {
		l, ok := revokeLine(row{columns: []string{"user", "host", "user_attributes"}, values: []sql.NullString{{String: "u"}, {String: "%"}, {String: text, Valid: true}}})
		if !ok {
			return ""
		}
		return l.Text
	}
	two := of(`{"Restrictions": [{"Database": "a", "Privileges": ["SELECT", "INSERT"]}, {"Database": "b", "Privileges": ["DROP"]}], "metadata": {"comment": "x"}}`)
	if two == "" || two != of(`{"Restrictions": [{"Privileges": ["DROP"], "Database": "b"}, {"Privileges": ["INSERT", "SELECT"], "Database": "a"}]}`) {
		t.Errorf("another order is %q", two)
	}
	for _, other := range []string{
		``, `[1]`, `{}`, `{"Restrictions": 1}`, `{"Restrictions": [1, {"Privileges": 2}]}`, `{"Restrictions": [{"Database": "b", "Privileges": ["DROP"]}]}`,
		`{"Restrictions": [{"Database": "a", "Privileges": ["SELECT", "INSERT"]}, {"Database": "c", "Privileges": ["DROP"]}]}`,
	} {
		if of(other) == two {
			t.Errorf("%s is the same", other)
		}
	}
}

// A piece of accounts has a form that members of all releases read; see docs/format/entry.md.
func TestAPieceOfAccountsInTheLog(t *testing.T) {
	b, err := json.Marshal(Piece{Table: Table{"mysql", "user"}, Key: []string{noKey}, Rule: accountRule, Engine: "9.7.4"})
	want := `{"schema":"mysql","name":"user","key":["(rule)"],"rule":"accounts/1","engine":"9.7.4"}`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
}

// What differs is named, and nothing else, whatever members say.
func TestDiffering(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(what string) map[string]uint64 {
			return rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "d"}), rapid.Uint64Range(1, 3)).Draw(t, what)
		}
		list := func(m map[string]uint64) (l []Named) {
			for n, s := range m {
				l = append(l, Named{n, s})
			}
			slices.SortFunc(l, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
			return l
		}
		a, b := draw("a"), draw("b")
		var want []string
		for _, n := range []string{"a", "b", "c", "d"} {
			if a[n] != b[n] {
				want = append(want, n)
			}
		}
		if got := differing(list(a), list(b)); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// Nobody is judged for grants on routines; what both looks have found is told.
func TestAdvise(t *testing.T) {
	pieces := []Piece{{Table: Table{"mysql", "procs_priv"}, Rule: accountRule}, {Table: Table{"mysql", "user"}, Rule: accountRule}, {Table: Table{"mysql", "procs_priv"}}}
	look := func(sums ...string) []Difference {
		results := []Result{{Node: 1}, {Node: 2}, {Node: 3}}
		for i := range results {
			results[i].Named = map[int][]Named{}
			for p, s := range sums {
				x := Sum{Add: "right"}
				if i == 1 {
					x.Add = s
				}
				results[i].Sums = append(results[i].Sums, x)
				results[i].Named[p] = []Named{{"somebody", uint64(len(x.Add))}}
			}
		}
		return Judge(len(sums), results, 1)
	}
	for _, c := range []struct {
		first, second  []Difference
		judged, advice string
	}{
		{look("wrong again", "right", "right"), look("wrong again", "right", "right"), "[]", "[0 [2] [somebody]]"},
		{look("wrong again", "right", "right"), look("right", "right", "right"), "[]", "[]"},
		{look("wrong again", "wrong again", "wrong again"), look("right", "wrong again", "wrong again"), "[1 2]", "[]"},
	} {
		judged, advice := Advise(pieces, c.first, c.second)
		var j []int
		var a []string
		for _, d := range judged {
			j = append(j, d.Piece)
		}
		for _, d := range advice {
			a = append(a, fmt.Sprint(d.Piece, d.Wrong, d.Names))
		}
		if fmt.Sprint(j) != c.judged || fmt.Sprint(a) != c.advice {
			t.Errorf("judged %v, advice %v, want %s and %s", j, a, c.judged, c.advice)
		}
		for _, v := range Confirm(pieces, judged, c.second) {
			if slices.ContainsFunc(v.Where, Piece.Advisory) || v.Node != paxos.NodeID(2) || v.Place != "somebody" {
				t.Errorf("%+v", v)
			}
		}
	}
}
