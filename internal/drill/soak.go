package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
}

// SoakChunk is one chunk that was judged.
type SoakChunk struct {
	Seed     uint64        `json:"seed"`
	Faults   int           `json:"faults"`
	OK       bool          `json:"ok"`
	Took     time.Duration `json:"took"`
	Command  string        `json:"command"`
	Findings []Finding     `json:"findings"`
}

// soakFile is the name of the state.
const soakFile = "soak.json"

// Run goes on with the soak until all faults are done, time is over, or a promise is
// broken. The state tells how far it came.
func (s Soak) Run(ctx context.Context, seed uint64) (SoakState, error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return SoakState{}, fmt.Errorf("make folder of soak: %w", err)
	}
	st, err := s.load(seed)
	if err != nil {
		return st, err
	}
	begun := time.Now()
	for st.Done < s.Faults && (s.For == 0 || time.Since(begun) < s.For) {
		next := st.Seed + uint64(len(st.Chunks))
		n := min(s.Chunk, s.Faults-st.Done)
		s.Say("chunk with seed %d: %d faults, after %d of %d", next, n, st.Done, s.Faults)
		v, err := s.chunk(ctx, next, n)
		if err != nil {
			return st, fmt.Errorf("chunk with seed %d: %w", next, err)
		}
		st.add(v)
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
	if err != nil {
		return fmt.Errorf("write state of soak: %w", err)
	}
	return nil
}

// chunk runs one drill. Of one that kept every promise only the report stays.
func (s Soak) chunk(ctx context.Context, seed uint64, faults int) (*Verdict, error) {
	p, err := s.Plan(seed, faults)
	if err != nil {
		return nil, err
	}
	p.Seed, p.Faults, p.For, p.Out = seed, faults, 0, filepath.Join(s.Dir, fmt.Sprint(seed))
	v, err := Run(ctx, p)
	if ctx.Err() != nil {
		return v, errors.Join(err, os.RemoveAll(p.Cluster.Dir)) // the next call begins this chunk again
	}
	if err != nil || !v.OK {
		return v, err
	}
	names := []string{"history.jsonl"}
	for n := 1; n <= p.Cluster.Nodes; n++ {
		names = append(names, fmt.Sprintf("node%d.log", n))
	}
	for _, n := range names {
		if err := os.Remove(filepath.Join(p.Out, n)); err != nil {
			return v, fmt.Errorf("tidy up: %w", err)
		}
	}
	if err := os.RemoveAll(p.Cluster.Dir); err != nil {
		return v, fmt.Errorf("tidy up: %w", err)
	}
	return v, nil
}

func (st *SoakState) add(v *Verdict) {
	st.Done += len(v.Bouts)
	c := SoakChunk{Seed: v.Seed, Faults: len(v.Bouts), OK: v.OK, Took: v.Took, Command: v.Command, Findings: v.Findings}
	st.Chunks = append(st.Chunks, c)
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

// String is a summary that documents can quote.
func (st SoakState) String() string {
	var b strings.Builder
	b.WriteString(Summary(st.Results))
	var took time.Duration
	bad := 0
	for _, c := range st.Chunks {
		took += c.Took
		if !c.OK {
			bad++
			fmt.Fprintf(&b, "BROKEN: seed %d: %s\n", c.Seed, c.Command)
		}
	}
	fmt.Fprintf(&b, "%d faults on %d clusters in %v: %d clusters broke a promise\n", st.Done, len(st.Chunks), took.Round(time.Second), bad)
	return b.String()
}
