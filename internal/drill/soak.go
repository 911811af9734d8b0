package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Soak is a long drill in chunks, each on a fresh cluster. Its state is a file, so that
// a later call goes on where an earlier one was stopped.
type Soak struct {
	Dir    string
	Faults int           // in all, over all calls
	Chunk  int           // faults on one cluster
	For    time.Duration // begin no chunk after this time; 0: no limit
	// Plan makes the plan of a chunk; Seed, Faults and Out are set by the soak.
	Plan func(seed uint64, faults int) (Plan, error)
	Say  func(format string, args ...any)
}

// SoakState is what a soak has done so far.
type SoakState struct {
	Seed   uint64      `json:"seed"` // of the first chunk; the next has one more
	Done   int         `json:"done"` // faults
	Chunks []SoakChunk `json:"chunks"`
	// Results are the times of each fault after which all was well.
	Results []Result `json:"results"`
	// Phases are the times of each phase of all promotions.
	Phases map[string][]time.Duration `json:"phases"`
	// Running is the folder of the cluster that is at work; a call that was killed leaves it.
	Running string `json:"running,omitempty"`
}

// SoakChunk is one chunk that was judged.
type SoakChunk struct {
	Seed      uint64         `json:"seed"`
	Faults    int            `json:"faults"`
	Families  map[string]int `json:"families"` // faults of each
	Failovers int            `json:"failovers"`
	OK        bool           `json:"ok"`
	Took      time.Duration  `json:"took"`
	Command   string         `json:"command"`
	Findings  []Finding      `json:"findings"`
	Broken    []string       `json:"broken,omitempty"`
}

// The files of a soak: its state, and a summary that documents can quote.
const (
	soakFile    = "soak.json"
	summaryFile = "summary.md"
)

// Run goes on with the soak until all faults are done, time is over, a promise is
// broken, or the context ends; what was done of the chunk by then is judged and counts.
// The state tells how far it came.
func (s Soak) Run(ctx context.Context, seed uint64) (SoakState, error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return SoakState{}, fmt.Errorf("make folder of soak: %w", err)
	}
	st, err := s.load(seed)
	if err != nil {
		return st, err
	}
	if st.Running != "" {
		s.Say("an earlier call did not come to its end; what it left of a cluster is in %s", st.Running)
	}
	begun := time.Now()
	for st.Done < s.Faults && ctx.Err() == nil && (s.For == 0 || time.Since(begun) < s.For) {
		next := st.Seed + uint64(len(st.Chunks))
		n := min(s.Chunk, s.Faults-st.Done)
		s.Say("chunk with seed %d: %d faults, after %d of %d", next, n, st.Done, s.Faults)
		v, err := s.chunk(ctx, &st, next, n)
		if errors.Is(err, context.Canceled) { // before its first fault
			return st, nil
		}
		if err != nil {
			return st, fmt.Errorf("chunk with seed %d: %w", next, err)
		}
		st.add(v)
		st.Running = ""
		if err := s.save(st); err != nil {
			return st, err
		}
		if !v.OK {
			return st, nil
		}
	}
	return st, nil
}

func (s Soak) load(seed uint64) (SoakState, error) {
	st := SoakState{Seed: seed}
	b, err := os.ReadFile(filepath.Join(s.Dir, soakFile))
	if errors.Is(err, os.ErrNotExist) {
		return st, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return st, fmt.Errorf("read state of soak: %w", err)
	}
	return st, nil
}

func (s Soak) save(st SoakState) error {
	b, err := json.MarshalIndent(st, "", " ")
	if err == nil {
		path := filepath.Join(s.Dir, soakFile)
		if err = os.WriteFile(path+".new", append(b, '\n'), 0o644); err == nil {
			err = os.Rename(path+".new", path)
		}
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(s.Dir, summaryFile), []byte(st.Markdown()), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write state of soak: %w", err)
	}
	return nil
}

// chunk runs one drill. Of one that kept every promise the report stays,
// without the history.
func (s Soak) chunk(ctx context.Context, st *SoakState, seed uint64, faults int) (*Verdict, error) {
	p, err := s.Plan(seed, faults)
	if err != nil {
		return nil, err
	}
	st.Running = p.Cluster.Dir
	if err := s.save(*st); err != nil {
		return nil, err
	}
	p.Seed, p.Faults, p.For, p.Out = seed, faults, 0, filepath.Join(s.Dir, fmt.Sprint(seed))
	v, err := Run(ctx, p)
	if ctx.Err() != nil && len(v.Bouts) == 0 {
		st.Running = ""
		return v, errors.Join(ctx.Err(), os.RemoveAll(p.Cluster.Dir), s.save(*st))
	}
	if err != nil || !v.OK {
		return v, err
	}
	if err := os.Remove(filepath.Join(p.Out, historyFile)); err != nil {
		return v, fmt.Errorf("tidy up: %w", err)
	}
	if err := os.RemoveAll(p.Cluster.Dir); err != nil {
		return v, fmt.Errorf("tidy up: %w", err)
	}
	return v, nil
}

func (st *SoakState) add(v *Verdict) {
	st.Done += len(v.Bouts)
	c := SoakChunk{Seed: v.Seed, Faults: len(v.Bouts), Families: map[string]int{}, Failovers: len(v.Failovers), OK: v.OK, Took: v.Took, Command: v.Command, Findings: v.Findings, Broken: v.Broken}
	for _, b := range v.Bouts {
		c.Families[b.Family]++
	}
	st.Chunks = append(st.Chunks, c)
	if st.Phases == nil {
		st.Phases = map[string][]time.Duration{}
	}
	for name, ds := range phaseTimes(v.Failovers) {
		st.Phases[name] = append(st.Phases[name], ds...)
	}
	st.Results = append(st.Results, results(v.Bouts)...)
}

// OK reports that no chunk has broken a promise.
func (st SoakState) OK() bool {
	for _, c := range st.Chunks {
		if !c.OK {
			return false
		}
	}
	return true
}

// String is a summary for a terminal.
func (st SoakState) String() string {
	var b strings.Builder
	b.WriteString(Summary(st.Results))
	b.WriteString(st.total())
	return b.String()
}

// total says in numbers what was done and found.
func (st SoakState) total() string {
	var b strings.Builder
	var took time.Duration
	bad, acked, failovers := 0, 0, 0
	for _, c := range st.Chunks {
		took += c.Took
		failovers += c.Failovers
		for _, f := range c.Findings {
			acked += f.Acked
		}
		if !c.OK {
			bad++
			fmt.Fprintf(&b, "BROKEN: seed %d: %s\n", c.Seed, c.Command)
		}
	}
	fmt.Fprintf(&b, "%d faults on %d clusters in %v, %d promotions, %d operations acknowledged: ", st.Done, len(st.Chunks), took.Round(time.Second), failovers, acked)
	if bad == 0 {
		b.WriteString("every promise was kept\n")
	} else {
		fmt.Fprintf(&b, "%d clusters broke a promise\n", bad)
	}
	return b.String()
}

// Markdown is a summary that documents can quote.
func (st SoakState) Markdown() string {
	var b strings.Builder
	families, acked := map[string]int{}, map[string]int{}
	wrong := map[string]int{}
	for _, c := range st.Chunks {
		for f, n := range c.Families {
			families[f] += n
		}
		for _, f := range c.Findings {
			acked[f.Load] += f.Acked
			wrong[f.Load] += len(f.Wrong)
		}
	}
	b.WriteString(st.total() + "\n| family of faults | faults |\n| --- | ---: |\n")
	for _, f := range slices.Sorted(maps.Keys(families)) {
		fmt.Fprintf(&b, "| %s | %d |\n", f, families[f])
	}
	b.WriteString("\n| workload | operations acknowledged | wrong |\n| --- | ---: | ---: |\n")
	for _, l := range slices.Sorted(maps.Keys(acked)) {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", l, acked[l], wrong[l])
	}
	b.WriteString("\n" + markdown("family of faults that came alone", st.Results, familyName))
	b.WriteString("\n| phase of a promotion | times | median | 99 of 100 | longest |\n| --- | ---: | ---: | ---: | ---: |\n")
	for _, name := range slices.Sorted(maps.Keys(st.Phases)) {
		ds := slices.Sorted(slices.Values(st.Phases[name]))
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s |\n", name, len(ds), millis(percentile(ds, 50)), millis(percentile(ds, 99)), millis(ds[len(ds)-1]))
	}
	b.WriteString("\n" + markdown("fault", st.Results, func(r Result) string { return r.Fault }))
	return b.String()
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
