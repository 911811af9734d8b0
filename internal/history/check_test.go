package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parse reads transactions, one a line: outcome, begin-end, and steps. "a1=5" appends
// 5 to list 1, "r1=5,6" reads list 1. A line "final" gives the lists at the end.
func parse(t *testing.T, text string) (txns []Txn, final map[Key][]Value) {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == "final":
			final = map[Key][]Value{}
			for _, s := range f[1:] {
				o := parseOp(t, s)
				final[o.Key] = o.Read
			}
		default:
			x := Txn{Client: len(txns)}
			if err := x.Outcome.UnmarshalText([]byte(f[0])); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscanf(f[1], "%d-%d", &x.Begin, &x.End); err != nil {
				t.Fatal(line, err)
			}
			for _, s := range f[2:] {
				x.Ops = append(x.Ops, parseOp(t, s))
			}
			txns = append(txns, x)
		}
	}
	return txns, final
}

func parseOp(t *testing.T, s string) Op {
	t.Helper()
	key, vals, _ := strings.Cut(s[1:], "=")
	k, err := strconv.Atoi(key)
	if err != nil {
		t.Fatal(s, err)
	}
	o := Op{Key: Key(k)}
	for _, v := range strings.FieldsFunc(vals, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(s, err)
		}
		o.Read = append(o.Read, Value(n))
	}
	if s[0] == 'a' {
		o.Append, o.Read = o.Read[0], nil
	}
	return o
}

var stories = []struct {
	name         string
	text         string
	serializable string // what is found, as names in alphabetical order
	forbiddenRR  string // what REPEATABLE READ forbids of it
}{
	{name: "nothing happened", text: ``},
	{name: "one after the other", text: `
		committed 0-10 a1=1 r1=1 r2=
		committed 20-30 r1=1 a1=2 a2=3
		committed 40-50 r1=1,2 r2=3
		final r1=1,2 r2=3`},
	{name: "at the same time, in some order", text: `
		committed 0-100 a1=1 a2=1
		committed 0-100 r1=1 r2=1
		committed 0-100 r1= r2=
		final r1=1 r2=1`},
	{name: "refused and absent", text: `
		aborted 0-10 a1=1 a2=1
		committed 20-30 r1= r2=
		final r1= r2=`},
	{name: "unknown and absent", text: `
		unknown 0-0 a1=1 a2=1
		committed 20-30 r1= r2=
		final r1= r2=`},
	{name: "unknown and there, later than anybody thought", text: `
		unknown 0-0 a1=1 a2=1
		committed 20-30 r1= r2=
		committed 40-50 r1=1 r2=1
		final r1=1 r2=1`},
	{name: "own writes are seen", text: `
		committed 0-10 a1=1
		committed 20-30 r1=1 a1=2 r1=1,2 a1=3 r1=1,2,3
		final r1=1,2,3`},
	{name: "an acknowledged write is lost", text: `
		committed 0-10 a1=1
		committed 20-30 a1=2
		final r1=1`, serializable: LostWrite, forbiddenRR: LostWrite},
	{name: "an acknowledged write is lost, and had been read", text: `
		committed 0-10 a1=1
		committed 20-30 r1=1
		final r1=`, serializable: Contradict + "," + LostWrite, forbiddenRR: Contradict + "," + LostWrite},
	{name: "half of an unknown transaction is there", text: `
		unknown 0-0 a1=1 a2=2
		final r1=1 r2=`, serializable: Torn, forbiddenRR: Torn},
	{name: "G1a: a refused value is read", text: `
		aborted 0-10 a1=1
		committed 20-30 r1=1
		final r1=`, serializable: G1a + "," + Contradict, forbiddenRR: G1a + "," + Contradict},
	{name: "a refused value is there at the end", text: `
		aborted 0-10 a1=1
		final r1=1`, serializable: G1a, forbiddenRR: G1a},
	{name: "G1b: a value in the midst of a transaction is read", text: `
		committed 0-100 a1=1 a1=2
		committed 0-100 r1=1
		final r1=1,2`, serializable: GSingle + "," + G1b, forbiddenRR: G1b},
	{name: "G0: writes of two transactions interleave", text: `
		committed 0-100 a1=1 a2=1
		committed 0-100 a1=2 a2=2
		final r1=1,2 r2=2,1`, serializable: G0, forbiddenRR: G0},
	{name: "G1c: each has read what the other wrote", text: `
		committed 0-100 a1=1 r2=2
		committed 0-100 a2=2 r1=1
		final r1=1 r2=2`, serializable: G1c, forbiddenRR: G1c},
	{name: "G1c over three, with ww", text: `
		committed 0-100 a1=1 r3=3
		committed 0-100 a1=2 a2=2
		committed 0-100 r2=2 a3=3
		final r1=1,2 r2=2 r3=3`, serializable: G1c, forbiddenRR: G1c},
	{name: "lost update", text: `
		committed 0-100 r1= a1=1
		committed 0-100 r1= a1=2
		final r1=1,2`, serializable: GSingle + "," + LostUpdate},
	{name: "read skew", text: `
		committed 0-100 a1=1 a2=1
		committed 0-100 r1= r2=1
		final r1=1 r2=1`, serializable: GSingle},
	{name: "write skew", text: `
		committed 0-100 r1= a2=2
		committed 0-100 r2= a1=1
		final r1=1 r2=2`, serializable: G2},
	{name: "long fork: two readers disagree on an order", text: `
		committed 0-100 a1=1
		committed 0-100 a2=2
		committed 0-100 r1=1 r2=
		committed 0-100 r1= r2=2
		final r1=1 r2=2`, serializable: G2},
	{name: "stale read", text: `
		committed 0-10 a1=1
		committed 20-30 r1=
		final r1=1`, serializable: GSingle + RealTimeTag + "," + StaleRead, forbiddenRR: StaleRead},
	{name: "order against real time, that no single list shows", text: `
		committed 0-10 a1=1
		committed 20-30 a2=2
		committed 0-100 r1= r2=2
		final r1=1 r2=2`, serializable: GSingle + RealTimeTag},
	{name: "writes against real time", text: `
		committed 0-10 a1=1
		committed 20-30 a1=2
		final r1=2,1`, serializable: G0 + RealTimeTag},
	{name: "fuzzy read", text: `
		committed 0-100 a1=1
		committed 0-100 r1= r1=1
		final r1=1`, serializable: GSingle + "," + FuzzyRead, forbiddenRR: FuzzyRead},
	{name: "what MySQL does at REPEATABLE READ", text: `
		committed 0-100 a1=1
		committed 0-100 r1= a1=2 r1=1,2
		final r1=1,2`, serializable: GSingle + "," + Internal},
	{name: "own write is not seen", text: `
		committed 0-100 a1=1 r1=
		final r1=1`, serializable: OwnWrite, forbiddenRR: OwnWrite},
	{name: "a value twice", text: `
		committed 0-100 a1=1
		final r1=1,1`, serializable: Duplicate, forbiddenRR: Duplicate},
	{name: "a value of nobody", text: `
		committed 0-100 r1=7
		final r1=7`, serializable: Garbage, forbiddenRR: Garbage},
	{name: "two orders of one list", text: `
		committed 0-100 a1=1
		committed 0-100 a1=2
		committed 0-100 r1=2
		final r1=1,2`, serializable: Contradict, forbiddenRR: Contradict},
	{name: "without the lists at the end", text: `
		committed 0-100 a1=1 a2=1
		committed 0-100 a1=2 a2=2
		committed 200-300 r1=1,2
		committed 200-300 r2=2,1`, serializable: G0, forbiddenRR: G0},
}

func names(as []Anomaly) string {
	var out []string
	for _, a := range as {
		if !slices.Contains(out, a.Name) {
			out = append(out, a.Name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func TestEachAnomalyIsFound(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			txns, final := parse(t, s.text)
			r := Check(txns, final, Serializable)
			if got := names(r.Forbidden); got != s.serializable || len(r.Allowed) > 0 {
				t.Errorf("at SERIALIZABLE: found %q, want %q\n%v", got, s.serializable, r.Forbidden)
			}
			r = Check(txns, final, RepeatableRead)
			if got := names(r.Forbidden); got != s.forbiddenRR {
				t.Errorf("at REPEATABLE READ: found %q, want %q\n%v", got, s.forbiddenRR, r.Forbidden)
			}
		})
	}
}

func TestEveryNameHasAStory(t *testing.T) {
	all := ""
	for _, s := range stories {
		all += "," + s.serializable
	}
	for _, n := range []string{G0, G1a, G1b, G1c, LostUpdate, GSingle, G2, LostWrite, Torn, Duplicate, Garbage, Contradict, StaleRead, FuzzyRead, OwnWrite, Internal, G0 + RealTimeTag, GSingle + RealTimeTag} {
		if !strings.Contains(all+",", ","+n+",") {
			t.Errorf("no story shows %s", n)
		}
	}
}

// database is a correct serializable database: transactions happen at one moment
// between begin and end, some of them without their clients being told.
func database(r *rand.Rand, n int) (txns []Txn, lists map[Key][]Value) {
	lists = map[Key][]Value{}
	for i := range n {
		at := int64(i) * 10
		x := Txn{Client: i % 20, Begin: at - r.Int64N(200), End: at + 1 + r.Int64N(200), Outcome: Committed}
		fate := r.IntN(20)
		base := Key(i / 200 * 10)
		for range 1 + r.IntN(4) {
			k := base + Key(r.IntN(10))
			if r.IntN(2) == 0 {
				x.Ops = append(x.Ops, Op{Key: k, Read: slices.Clone(lists[k])})
				continue
			}
			v := Value(i*10 + len(x.Ops) + 1)
			x.Ops = append(x.Ops, Op{Key: k, Append: v})
			if fate > 1 {
				lists[k] = append(lists[k], v)
			}
		}
		switch fate {
		case 0:
			x.Outcome = Aborted
			x.Ops = slices.DeleteFunc(x.Ops, func(o Op) bool { return o.Append == 0 })
		case 1, 2:
			x.Outcome = Unknown
		}
		txns = append(txns, x)
	}
	return txns, lists
}

func TestACorrectDatabaseIsNotBlamed(t *testing.T) {
	for seed := range uint64(30) {
		txns, lists := database(rand.New(rand.NewPCG(seed, 1)), 600)
		if r := Check(txns, lists, Serializable); !r.OK() || len(r.Allowed) > 0 {
			t.Fatalf("seed %d: %v", seed, r.Forbidden)
		}
	}
}

// TestDamageIsFound breaks one thing in a long correct history.
func TestDamageIsFound(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		txns, lists := database(r, 600)
		k := Key(r.IntN(30))
		l := lists[k]
		if len(l) < 4 {
			continue
		}
		at := r.IntN(len(l) - 1)
		switch seed % 3 {
		case 0: // a value is lost
			lists[k] = slices.Delete(slices.Clone(l), at, at+1)
		case 1: // two values change places
			l = slices.Clone(l)
			l[at], l[at+1] = l[at+1], l[at]
			lists[k] = l
		case 2: // a value comes again
			lists[k] = append(slices.Clone(l), l[at])
		}
		if Check(txns, lists, Serializable).OK() {
			t.Errorf("seed %d: the damage to list %d at %d was not found", seed, k, at)
		}
	}
}

// TestFiftyThousand shows that a history of a long drill is judged in seconds, also a
// knotted one.
func TestFiftyThousand(t *testing.T) {
	txns, lists := database(rand.New(rand.NewPCG(1, 3)), 50_000)
	if r := Check(txns, lists, Serializable); !r.OK() {
		t.Fatal(r.Forbidden)
	}
	for k, l := range lists { // every list is turned round
		l = slices.Clone(l)
		slices.Reverse(l)
		lists[k] = l
	}
	if Check(txns, lists, Serializable).OK() {
		t.Fatal("a history that is wrong all over has passed")
	}
}

func TestAValueWrittenTwiceIsACallersFault(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it passed")
		}
	}()
	txns, final := parse(t, "committed 0-1 a1=1\ncommitted 2-3 a1=1")
	Check(txns, final, RepeatableRead)
}
