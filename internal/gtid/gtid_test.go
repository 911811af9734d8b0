package gtid

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

const (
	ua = "0a5b1c3e-0000-11ee-b962-0242ac120001"
	ub = "0b5b1c3e-0000-11ee-b962-0242ac120002"
)

func mustSet(t testing.TB, s string) *Set {
	t.Helper()
	set, err := ParseSet(s)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func source(t testing.TB, s string) Source {
	t.Helper()
	u, err := ParseUUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return Source{UUID: u}
}

func TestParseAndString(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{" \n", ""},
		{ua + ":1", ua + ":1"},
		{ua + ":1-3:4:7-9:5", ua + ":1-5:7-9"},
		{ub + ":2,\n" + ua + ":1-1", ua + ":1," + ub + ":2"},
		{ua + ":1-9:hello:1:2:World_1:5-6", ua + ":1-9:hello:1-2:world_1:5-6"},
		{ua + ":tag:3, " + ua + ":1", ua + ":1:tag:3"},
		{"0A5B1C3E-0000-11EE-B962-0242AC120001: 3 - 5 ", ua + ":3-5"},
		{ua + ":9223372036854775806", ua + ":9223372036854775806"},
	} {
		if got := mustSet(t, c.in).String(); got != c.want {
			t.Errorf("parse %q = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		ua, ua + ":", ua + ":0", ua + ":3-2", ua + ":-1", ua + ":1-", ua + ":x", ua + ":x:", ua + ":x:y:1", ua + ":1:x",
		"0a5b1c3e000011eeb9620242ac120001:1", ua + ":9223372036854775807", ua + ":99999999999999999999",
		ua + ":1x:1", ua + ":abcdefghijklmnopqrstuvwxyz_0123456789:1",
	} {
		if set, err := ParseSet(in); err == nil {
			t.Errorf("parse %q: got %q, want an error", in, set)
		}
	}
	if _, err := Parse(ua + ":1-2"); err == nil {
		t.Error("two GTIDs were taken for one")
	}
}

func TestOneGTID(t *testing.T) {
	for _, in := range []string{ua + ":7", ua + ":tag:7"} {
		g, err := Parse(in)
		if err != nil || g.String() != in {
			t.Errorf("parse %q = %v, %v", in, g, err)
		}
	}
}

func TestAddAppendsWithoutAllocation(t *testing.T) {
	src, s := source(t, ua), &Set{}
	n := int64(0)
	s.Add(GTID{src, 1})
	n = 1
	got := testing.AllocsPerRun(1000, func() {
		n++
		s.Add(GTID{src, n})
	})
	if got != 0 {
		t.Errorf("%v allocations per added number", got)
	}
	if s.Count() != uint64(n) {
		t.Errorf("count %d, want %d", s.Count(), n)
	}
}

func TestNilSetIsEmpty(t *testing.T) {
	var s *Set
	if !s.Empty() || s.Count() != 0 || s.String() != "" || !s.Equal(&Set{}) || s.Contains(GTID{}) || !(&Set{}).ContainsSet(s) {
		t.Error("a nil set is not empty")
	}
	if !s.Clone().Empty() || s.ContainsSet(mustSet(t, ua+":1")) {
		t.Error("a nil set is not empty")
	}
}

// model is the naive set that the real one is compared with.
type model map[GTID]bool

func (m model) equals(s *Set) bool {
	if s.Count() != uint64(len(m)) {
		return false
	}
	for g := range s.All() {
		if !m[g] {
			return false
		}
	}
	return true
}

func drawSet(t *rapid.T, name string) (*Set, model) {
	s, m := &Set{}, model{}
	srcs := []Source{{UUID: UUID{1}}, {UUID: UUID{2}}, {UUID: UUID{1}, Tag: "t"}}
	for _, x := range rapid.SliceOfN(rapid.IntRange(0, 3*24-1), 0, 40).Draw(t, name) {
		g := GTID{srcs[x%3], int64(x/3) + 1}
		if s.Add(g) == m[g] {
			t.Fatalf("add %v: wrong answer", g)
		}
		m[g] = true
	}
	return s, m
}

func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, ma := drawSet(t, "a")
		b, mb := drawSet(t, "b")
		if !ma.equals(a) || !mb.equals(b) {
			t.Fatal("add differs from the model")
		}
		sub, union, within := a.Clone(), a.Clone(), true
		sub.Subtract(b)
		union.Union(b)
		msub, munion := model{}, model{}
		for g := range ma {
			munion[g] = true
			msub[g] = true
		}
		for g := range mb {
			munion[g] = true
			delete(msub, g)
			within = within && ma[g]
			if a.Contains(g) != ma[g] {
				t.Fatalf("contains %v differs", g)
			}
		}
		switch {
		case !msub.equals(sub):
			t.Fatalf("%v minus %v = %v", a, b, sub)
		case !munion.equals(union):
			t.Fatalf("%v plus %v = %v", a, b, union)
		case a.ContainsSet(b) != within:
			t.Fatalf("%v contains %v: %v", a, b, !within)
		case !ma.equals(a):
			t.Fatal("a clone shares memory")
		}
		checkForms(t, union)
	})
}

func checkForms(t interface{ Fatalf(string, ...any) }, s *Set) {
	back, err := ParseSet(s.String())
	if err != nil || !back.Equal(s) {
		t.Fatalf("text of %v reads as %v, %v", s, back, err)
	}
	back, err = DecodeSet(s.AppendBinary(nil))
	if err != nil || !back.Equal(s) {
		t.Fatalf("bytes of %v read as %v, %v", s, back, err)
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add("")
	f.Add(ua + ":1-3:7:tag:1," + ub + ":9")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSet(text); err == nil {
			checkForms(t, s)
		}
	})
}

func FuzzDecodeSet(f *testing.F) {
	f.Add((&Set{}).AppendBinary(nil))
	f.Add(mustSet(f, ua+":1-3:7,"+ub+":9").AppendBinary(nil))
	f.Add(mustSet(f, ua+":1-3:7:tag:1,"+ub+":9").AppendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSet(b); err == nil {
			checkForms(t, s)
		}
	})
}

func BenchmarkAddNext(b *testing.B) {
	src, s := source(b, ua), &Set{}
	s.AddInterval(source(b, ub), Interval{1, 1000})
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		n++
		s.Add(GTID{src, n})
	}
}

func BenchmarkContainsScattered(b *testing.B) {
	src, s := source(b, ua), &Set{}
	for n := int64(1); n < 20000; n += 2 {
		s.Add(GTID{src, n})
	}
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		s.Contains(GTID{src, r.Int64N(20000)})
	}
}
