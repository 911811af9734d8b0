package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/phxsql/phxsql/paxos"
)

// The stories in testdata say who is right. Commands:
//
//	judge master=N     one line for each member, NODE SUM...: the sums of the pieces; ? is
//	                   unknown, - is a missing table
//	confirm master=N   the same, after a line "again" for the second look
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var master int
			d.ScanArgs(t, "master", &master)
			one, two, _ := strings.Cut(d.Input, "again\n")
			pieces, first := looks(t, one)
			out := ""
			if d.Cmd == "judge" {
				for _, x := range Judge(len(pieces), first, paxos.NodeID(master)) {
					out += fmt.Sprintf("piece %d: %v wrong, %v right%s\n", x.Piece, x.Wrong, x.Right, map[bool]string{true: ", a tie"}[x.Tie])
				}
				return orNothing(out)
			}
			_, second := looks(t, two)
			for _, v := range Confirm(pieces, Judge(len(pieces), first, paxos.NodeID(master)), Judge(len(pieces), second, paxos.NodeID(master))) {
				out += fmt.Sprintf("node %d differs from %v in %d pieces, tie %v, settled %v\n", v.Node, v.Right, len(v.Where), v.Tie, v.Settled(len(first)))
			}
			return orNothing(out)
		})
	})
}

func orNothing(s string) string {
	if s == "" {
		return "nothing differs\n"
	}
	return s
}

func looks(t *testing.T, text string) (pieces []Piece, results []Result) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		var r Result
		if _, err := fmt.Sscan(words[0], &r.Node); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, w := range words[1:] {
			r.Sums = append(r.Sums, map[string]Sum{"?": {Unknown: "changed"}, "-": {Missing: true}}[w])
			if w != "?" && w != "-" {
				r.Sums[len(r.Sums)-1] = Sum{Rows: 1, Add: w}
			}
		}
		results = append(results, r)
		pieces = make([]Piece, max(len(pieces), len(r.Sums)))
	}
	return pieces, results
}

// Whatever the sums are: a member that agrees with a majority is never wrong, nobody is
// wrong who does not know, and the master is never wrong without a majority.
func TestJudgeNeverBlamesAMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "members")
		master := paxos.NodeID(rapid.IntRange(1, n).Draw(t, "master"))
		var results []Result
		count, known := map[string]int{}, 0
		for id := 1; id <= n; id++ {
			s := Sum{Add: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "sum")}
			if rapid.IntRange(0, 4).Draw(t, "knows") == 0 {
				s = Sum{Unknown: "changed"}
			} else {
				known++
				count[s.Add]++
			}
			results = append(results, Result{Node: paxos.NodeID(id), Sums: []Sum{s}})
		}
		for _, d := range Judge(1, results, master) {
			for _, id := range d.Wrong {
				s := results[id-1].Sums[0]
				if s.Unknown != "" || 2*count[s.Add] > known || d.Tie && id == master {
					t.Fatalf("node %d with %q is wrong: %v", id, s.Add, d)
				}
			}
			if len(d.Wrong)+len(d.Right) != known || !d.Tie && 2*len(d.Right) <= known {
				t.Fatalf("of %d: %v", known, d)
			}
		}
	})
}

func ints(vs ...string) []Value {
	var out []Value
	for _, v := range vs {
		out = append(out, Value{Int: &v})
	}
	return out
}

func TestARoundSurvivesTheLog(t *testing.T) {
	name := "böse'\"\\\n"
	r := Round{ID: "x", Pass: 3, Executed: "aa:1-7", Rate: 5, Pieces: []Piece{
		{Table: Table{"s", "t"}, Key: []string{"a", "b"}, After: []Value{{Text: &name}, {Raw: []byte{0, 255}}}, Through: ints("1", "18446744073709551615")},
		{Table: Table{"s", "u"}}, {Table: Table{"mysql", "user"}, Key: []string{noKey}, Rule: accountRule, Engine: "9.7.4"},
	}}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRound(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
	r.Executed = strings.Repeat("x", MaxRound)
	if _, err := r.Encode(); err == nil {
		t.Error("a round beyond the limit is encoded")
	}
	for _, bad := range []string{"", "{}", `{"id":"x","pieces":[{"key":["a"],"after":[]}]}`, `{"id":"x","pieces":[{"after":[{"int":"1"}]}]}`} {
		if got, err := DecodeRound([]byte(bad)); err == nil {
			t.Errorf("%s is read as %+v", bad, got)
		}
	}
}

func FuzzDecodeRound(f *testing.F) {
	f.Add([]byte(`{"id":"x","pieces":[{"schema":"s","name":"t","key":["a"],"after":[{"int":"1"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRound(b)
		if err != nil {
			return
		}
		for _, p := range r.Pieces {
			if where, args := bounds(p); strings.Count(where, "?") < len(args) {
				t.Errorf("%s with %d values", where, len(args))
			}
			_ = p.String()
		}
	})
}

func TestBoundsCutBetweenRows(t *testing.T) {
	p := Piece{Table: Table{"s", "t"}, Key: []string{"a", "b"}, After: ints("1", "2"), Through: ints("3", "4")}
	where, args := bounds(p)
	want := "TRUE AND ((`a` > ?) OR (`a` = ? AND `b` > ?)) AND NOT ((`a` > ?) OR (`a` = ? AND `b` > ?)) AND `a` <= ?"
	if where != want || !slices.Equal(args, []any{int64(1), int64(1), int64(2), int64(3), int64(3), int64(4), int64(3)}) {
		t.Errorf("%s with %v", where, args)
	}
}

// A place in the order of one key is none in that of another.
func TestCursorFits(t *testing.T) {
	n, s := "7", "x"
	at := Cursor{Key: []string{"a", "b"}, After: []Value{{Int: &n}, {Text: &s}}}
	for _, c := range []struct {
		what string
		key  []column
		want bool
	}{
		{"the same", []column{{name: "a", kind: "int"}, {name: "b", kind: "varchar"}}, true},
		{"shorter", []column{{name: "a", kind: "int"}}, false},
		{"longer", []column{{name: "a", kind: "int"}, {name: "b", kind: "varchar"}, {name: "c", kind: "int"}}, false},
		{"another column", []column{{name: "a", kind: "int"}, {name: "c", kind: "varchar"}}, false},
		{"another type", []column{{name: "a", kind: "varbinary"}, {name: "b", kind: "varchar"}}, false},
	} {
		if got := at.fits(c.key); got != c.want {
			t.Errorf("%s: fits %v", c.what, got)
		}
	}
	if (Cursor{}).fits([]column{{name: "a", kind: "int"}}) {
		t.Error("the beginning is behind a key")
	}
}
