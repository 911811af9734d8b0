package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A node process takes one job per line on its standard input and answers with
// lines: READY once, then START, STOP and RESULT for each job. EOF ends it.

// job is one measurement.
type job struct {
	Proposers int           `json:"proposers"`
	Size      int           `json:"size"`
	Warm      time.Duration `json:"warm"`
	Time      time.Duration `json:"time"`
	Profile   string        `json:"profile,omitempty"` // write a CPU profile here
}

// result is what the leader measured.
type result struct {
	Commits int64         `json:"commits"`
	Errors  int64         `json:"errors"`
	Time    time.Duration `json:"time"`
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Max     time.Duration `json:"max"`
}

// propose gets a value committed and applied in a group.
type propose func(group int, value []byte) error

// serve carries out jobs until the input ends. Followers have no propose.
func serve(in io.Reader, out io.Writer, groups int, do propose) error {
	fmt.Fprintln(out, "READY")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var j job
		if err := json.Unmarshal(lines.Bytes(), &j); err != nil {
			return fmt.Errorf("read job: %w", err)
		}
		if do == nil && j.Proposers > 0 {
			return fmt.Errorf("a follower got a job")
		}
		r, err := run(j, groups, do, out)
		if err != nil {
			return err
		}
		b, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		fmt.Fprintf(out, "RESULT %s\n", b)
	}
	return lines.Err()
}

// run is one job: proposers that each wait for their value before the next.
func run(j job, groups int, do propose, out io.Writer) (result, error) {
	var recording, over atomic.Bool
	var wg sync.WaitGroup
	hists := make([]histogram, j.Proposers)
	var failed atomic.Int64
	// One pattern for all: what the driver keeps counts as the node's memory.
	pattern := make([]byte, j.Size)
	for i, random := 0, rand.New(rand.NewPCG(1, 1)); i < len(pattern); i++ {
		pattern[i] = byte(random.Uint32())
	}
	for p := range j.Proposers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(p), 1))
			for n := uint64(1); !over.Load(); n++ {
				v := append([]byte(nil), pattern...) // the log keeps it
				binary.LittleEndian.PutUint64(v, uint64(p)<<40|n)
				start := time.Now()
				err := do(random.IntN(groups), v)
				took := time.Since(start)
				switch {
				case err != nil:
					if failed.Add(1) <= 3 {
						fmt.Fprintln(os.Stderr, "propose:", err)
					}
					time.Sleep(time.Millisecond)
				case recording.Load():
					hists[p].add(took)
				}
			}
		})
	}
	time.Sleep(j.Warm)
	stop, err := profile(j.Profile)
	if err != nil {
		return result{}, err
	}
	fmt.Fprintln(out, "START")
	recording.Store(true)
	start := time.Now()
	time.Sleep(j.Time)
	recording.Store(false)
	took := time.Since(start)
	fmt.Fprintln(out, "STOP")
	stop()
	over.Store(true)
	wg.Wait()
	var all histogram
	for i := range hists {
		all.merge(&hists[i])
	}
	return result{
		Commits: all.count, Errors: failed.Load(), Time: took,
		P50: all.quantile(0.5), P99: all.quantile(0.99), Max: all.max,
	}, nil
}
