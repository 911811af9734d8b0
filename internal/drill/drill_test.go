package drill

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/history"
)

func TestASeedRepeatsItsSchedule(t *testing.T) {
	type drawn struct {
		kind    string
		hold    time.Duration
		gap     time.Duration
		overlap Overlap
		dice    uint64
	}
	draw := func(seed uint64) []drawn {
		s := NewSchedule(seed, Kinds)
		var out []drawn
		for range 3000 {
			p := s.Next()
			out = append(out, drawn{p.Kind.Name, p.Hold, p.Gap, p.Overlap, p.Dice})
		}
		return out
	}
	if !reflect.DeepEqual(draw(1), draw(1)) {
		t.Error("one seed gives two schedules")
	}
	if reflect.DeepEqual(draw(1), draw(2)) {
		t.Error("two seeds give one schedule")
	}
	seen, row := map[string]bool{}, 0
	for _, d := range draw(3) {
		seen[d.kind] = true
		if row++; d.overlap == Apart {
			row = 0
		}
		if row >= maxRow {
			t.Fatalf("more than %d faults in one episode", maxRow)
		}
	}
	if len(seen) != len(Kinds) {
		t.Errorf("3000 faults are of %d of the %d kinds", len(seen), len(Kinds))
	}
}

func TestKindsAreChosenByNameAndFamily(t *testing.T) {
	lab := Options{Nodes: 3, Namespaces: true}
	all, err := FindKinds(nil, lab)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, k := range Kinds {
		if names[k.Name] || k.Weight < 1 || k.Hold[1] < k.Hold[0] || k.Family == "" {
			t.Errorf("kind %q is not in order", k.Name)
		}
		names[k.Name] = true
		if f := k.Make(rand.New(rand.NewPCG(1, 1))); f.Name == "" || f.Break == nil {
			t.Errorf("kind %q makes an incomplete fault", k.Name)
		}
	}
	if slices.ContainsFunc(all, func(k Kind) bool { return k.Beyond != "" }) {
		t.Error("a fault that does not keep what is assumed is drawn without being asked for")
	}
	if some, err := FindKinds([]string{"clock-slow-master"}, lab); err != nil || len(some) != 1 {
		t.Errorf("asked for, it is not drawn: %d, %v", len(some), err)
	}
	loopback, err := FindKinds(nil, Options{Nodes: 3})
	if err != nil || len(loopback) >= len(all) || slices.ContainsFunc(loopback, func(k Kind) bool { return k.Family == "partition" }) {
		t.Errorf("on loopback there are %d kinds of %d: %v", len(loopback), len(all), err)
	}
	some, err := FindKinds([]string{"orderly", "kill-all"}, lab)
	if err != nil || len(some) != 4 {
		t.Errorf("a family of three and a name give %d kinds: %v", len(some), err)
	}
	for _, names := range [][]string{{"cut-master"}, {"partition"}, {"earthquake"}} {
		if _, err := FindKinds(names, Options{Nodes: 3}); err == nil {
			t.Errorf("%v was not refused", names)
		}
	}
}

func TestWorkloadsAreChosenByName(t *testing.T) {
	if all, err := FindLoads(nil); err != nil || len(all) != len(Loads) {
		t.Error(len(all), err)
	}
	if two, err := FindLoads([]string{"bank", "set"}); err != nil || len(two) != 2 || two[0].Name != "bank" {
		t.Error(two, err)
	}
	if _, err := FindLoads([]string{"bonk"}); err == nil {
		t.Error("a workload of no name was found")
	}
}

func TestJudgeOfASet(t *testing.T) {
	told := map[int64]Outcome{1: Acknowledged, 2: Refused, 3: Unknown, 4: Unknown}
	if w := judgeSet(1, "rows", told, map[int64]bool{1: true, 3: true}); len(w) != 0 {
		t.Error(w)
	}
	w := judgeSet(1, "rows", told, map[int64]bool{2: true, 7: true})
	if len(w) != 3 || !strings.Contains(w[0], "lost, such as [1]") || !strings.Contains(w[1], "there, such as [2]") || !strings.Contains(w[2], "nobody, such as [7]") {
		t.Error(w)
	}
}

func TestJudgeOfBalances(t *testing.T) {
	if w := judgeBalances(1, map[int64]int64{1: 5, 2: 5}, map[int64]int64{1: 5, 2: 6}); len(w) != 1 || !strings.Contains(w[0], "account 2 holds 5, by the book 6") {
		t.Error(w)
	}
}

func TestPauseIsTheLongestGap(t *testing.T) {
	r := &Recorder{acks: []int64{10, 20, 60, 70, 200}}
	for _, c := range []struct{ from, to, want int64 }{{0, 100, 40}, {15, 65, 40}, {60, 75, 10}, {70, 300, 130}, {71, 90, 19}} {
		if got := r.Pause(c.from, c.to); int64(got) != c.want {
			t.Errorf("from %d to %d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

func TestHistoryIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.jsonl")
	r, err := NewRecorder(path)
	if err != nil {
		t.Fatal(err)
	}
	r.Write("set", 1, 2, Acknowledged, 7, nil)
	r.Write("set", 3, 4, Unknown, 8, os.ErrDeadlineExceeded)
	r.Read("bank", 5, 6, map[string]int{"total": 1})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"load":"set","begin":1,"end":2,"outcome":"acknowledged","what":7}
{"load":"set","begin":3,"end":4,"outcome":"unknown","what":8,"error":"i/o timeout"}
{"load":"bank","begin":5,"end":6,"outcome":"read","what":{"total":1}}
`
	if string(got) != want {
		t.Errorf("got %s", got)
	}
}

func TestPhasesAreReadFromALog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node2.log")
	text := `time=2026-11-22T20:22:04.029Z level=INFO msg="gate opened" node=2 epoch=4
time=2026-11-22T20:22:04.029Z level=INFO msg="this node is the master" node=2 epoch=4 duration=11.87806s phases.reason="the old leader is gone" phases.elected=837.98ms phases.gate_open=177.84ms
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readFailovers(2, path)
	if err != nil {
		t.Fatal(err)
	}
	want := []Failover{{
		Node: 2, Open: time.Date(2026, 11, 22, 20, 22, 4, 29e6, time.UTC), Reason: "the old leader is gone", Took: "11.87806s",
		Phases: []Phase{{"elected", "837.98ms"}, {"gate_open", "177.84ms"}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestFirstCommitsEndFailovers(t *testing.T) {
	begun := time.Unix(100, 0)
	at := func(ms int64) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }
	fs := []Failover{{Open: at(10), Took: "1s", Phases: []Phase{{"elected", "5ms"}}}, {Open: at(100)}, {Open: at(200)}, {Open: at(900)}}
	ms := int64(time.Millisecond)
	addFirstCommits(fs, begun, []int64{5 * ms, 250 * ms, 12 * ms, 300 * ms})
	for i, want := range []string{"2ms", "", "50ms", ""} {
		got := ""
		for _, p := range fs[i].Phases {
			if p.Name == firstCommit {
				got = p.Took
			}
		}
		if got != want {
			t.Errorf("failover %d: the first commit took %q, want %q", i, got, want)
		}
	}
	want := map[string][]time.Duration{"all": {time.Second}, "elected": {5 * time.Millisecond}, firstCommit: {2 * time.Millisecond, 50 * time.Millisecond}}
	if got := phaseTimes(fs); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestPageShowsWhatHappened(t *testing.T) {
	sec := int64(time.Second)
	v := &Verdict{
		Seed: 42, Command: "phxsql drill --seed 42", Nodes: 3, Took: 12 * time.Second,
		Bouts:    []Bout{{N: 1, Kind: "kill-master", Text: "kill <it>", Master: 2, Broken: 2 * sec, Mended: 4 * sec, Well: 5 * sec, Pause: 1500 * time.Millisecond}},
		Changes:  []Change{{sec, 1, api.StateFollower}, {sec, 2, api.StateMaster}, {3 * sec, 2, stateSilent}},
		Findings: []Finding{{Load: "set", Facts: "10 inserts", Wrong: []string{"node 1: one row is lost"}}},
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := writePage(path, v, []int64{sec, sec, 5 * sec}, 10*sec); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"seed 42", "a promise was broken", "kill &lt;it&gt;", "node 2 is silent from 3.00s to 10.00s", "one row is lost", `class="fault" x="350"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestVerdictsAreTold(t *testing.T) {
	for _, c := range []struct {
		v    Verdict
		want string
	}{
		{Verdict{OK: true, Findings: []Finding{{Load: "set"}}}, "every promise was kept"},
		{Verdict{Findings: []Finding{{Load: "set", Wrong: []string{"lost"}}}}, "a promise was BROKEN"},
		{Verdict{Broken: []string{"no service"}}, "a promise was BROKEN"},
		{Verdict{Findings: []Finding{{Load: "set"}}}, "not everything could be judged"},
	} {
		if got := c.v.String(); !strings.Contains(got, c.want) {
			t.Errorf("%+v is told as %s", c.v, got)
		}
	}
}

func TestASoakGoesOn(t *testing.T) {
	dir := t.TempDir()
	s := Soak{Dir: dir}
	st, err := s.load(7)
	if err != nil || st.Seed != 7 || st.Done != 0 {
		t.Fatal(st, err)
	}
	st.add(&Verdict{Seed: 7, OK: true, Bouts: []Bout{{Kind: "kill-all", Mended: 1, Well: 2, Pause: 3}, {Kind: "kill-all"}}})
	if err := s.save(st); err != nil {
		t.Fatal(err)
	}
	again, err := s.load(99)
	if err != nil || !reflect.DeepEqual(again, st) || again.Done != 2 || len(again.Results) != 1 {
		t.Errorf("got %+v, want %+v: %v", again, st, err)
	}
	again.add(&Verdict{Seed: 8, Command: "phxsql drill --seed 8"})
	if again.OK() || !strings.Contains(again.String(), "BROKEN: seed 8") {
		t.Error(again)
	}
}

func TestPacerSpacesOperations(t *testing.T) {
	p, begin := newPacer(100), time.Unix(1000, 0)
	at := func(after time.Duration) time.Duration { return p.turn(begin.Add(after)).Sub(begin) }
	ms := time.Millisecond
	for i, want := range []time.Duration{0, 10 * ms, 20 * ms} { // all come at once
		if got := at(0); got != want {
			t.Errorf("turn %d is at %v, want %v", i, got, want)
		}
	}
	if got := at(500 * ms); got != 500*ms {
		t.Errorf("who comes later waits until %v", got)
	}
	if got := at(500 * ms); got != 510*ms {
		t.Errorf("turns that nobody took were made up for: the next is at %v", got)
	}
	if newPacer(0) != nil {
		t.Error("rate 0 spaces operations")
	}
	newPacer(0).wait(t.Context()) // at once
}

func TestResultsOfFaultsThatOverlap(t *testing.T) {
	got := results([]Bout{
		{Kind: "a", Family: "f", Mended: 10, Well: 15, Pause: 4},
		{Kind: "b", Family: "f", Overlap: OnTop, Mended: 30, Pause: 9},
		{Kind: "c", Family: "g", Mended: 30, Well: 37, Pause: 3},
		{Kind: "d", Family: "g", Outage: true, Refused: "no", Mended: 40, Well: 41, Pause: 2},
		{Kind: "e", Mended: 50}, // it did not come back
	})
	want := []Result{
		{Fault: "a", Family: "f", Pause: 4, Back: 5},
		{Fault: overlapping, Family: overlapping, Outage: true, Pause: 9, Back: 7},
		{Fault: "d (refused)", Family: "g", Outage: true, Pause: 2, Back: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestPercentiles(t *testing.T) {
	var ds []time.Duration
	for i := range 200 {
		ds = append(ds, time.Duration(i+1))
	}
	for _, c := range []struct {
		ds      []time.Duration
		percent int
		want    time.Duration
	}{{ds, 50, 100}, {ds, 99, 198}, {ds, 100, 200}, {ds[:1], 50, 1}, {ds[:3], 50, 2}, {ds[:3], 99, 3}} {
		if got := percentile(c.ds, c.percent); got != c.want {
			t.Errorf("%d of 100 in %d are within %d, want %d", c.percent, len(c.ds), got, c.want)
		}
	}
}

func TestSoakIsSummedUp(t *testing.T) {
	var st SoakState
	bout := func(kind, family string, pause time.Duration, outage bool) Bout {
		return Bout{Kind: kind, Family: family, Pause: pause, Outage: outage, Mended: 1, Well: 1 + int64(time.Second)}
	}
	st.add(&Verdict{
		Seed: 1, OK: true, Took: time.Minute, Failovers: make([]Failover, 3),
		Bouts:    []Bout{bout("kill-master", "kill", time.Second, false), bout("kill-master", "kill", 3*time.Second, false), bout("kill-all", "kill", 9*time.Second, true)},
		Findings: []Finding{{Load: "set", Acked: 40}, {Load: "bank", Acked: 2}},
	})
	text := st.Markdown()
	for _, want := range []string{
		"3 faults on 1 clusters in 1m0s, 3 promotions, 42 operations acknowledged: every promise was kept",
		"| kill | 3 |", "| set | 40 | 0 |",
		"| kill | 2 | 1.00s | 3.00s | 3.00s | 1.00s | 1.00s | 1.00s |",
		"| kill, service may stop | 1 | 9.00s |", "| kill-all | 1 | 9.00s |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
	st.add(&Verdict{Seed: 2, Command: "phxsql drill --seed 2", Findings: []Finding{{Load: "set", Acked: 1, Wrong: []string{"lost"}}}})
	if text = st.Markdown(); !strings.Contains(text, "1 clusters broke a promise") || !strings.Contains(text, "| set | 41 | 1 |") {
		t.Errorf("a broken promise is not in the summary:\n%s", text)
	}
}

func TestOldAnswersArePartedFromTheRest(t *testing.T) {
	rest, old := withoutStale([]history.Anomaly{{Name: history.StaleRead}, {Name: history.G0}, {Name: history.GSingle + history.RealTimeTag}, {Name: history.LostWrite}})
	if len(old) != 2 || len(rest) != 2 || rest[0].Name != history.G0 || rest[1].Name != history.LostWrite {
		t.Errorf("the rest is %v, old are %v", rest, old)
	}
}
