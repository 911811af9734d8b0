// Command phxsim runs schedules of the simulator. Without -n it takes one fresh
// seed after the other for a time; what fails is printed with its trace and the
// command that repeats it.
package main

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"

	"github.com/phxsql/phxsql/internal/sim"
)

func main() {
	forTime := flag.Duration("for", time.Minute, "how long to run fresh seeds")
	seed := flag.Uint64("seed", 0, "the first seed; 0 draws it from the time")
	step := flag.Uint64("step", 1, "distance from one seed to the next")
	count := flag.Uint64("n", 0, "number of seeds; 0: as many as the time allows")
	lines := flag.Int("trace", 60, "number of steps printed of a failure")
	quiet := flag.Bool("quiet", false, "print a failure in one line")
	keep := flag.Bool("keep", false, "go on after a failure")
	workers := flag.Int("j", 1, "number of schedules at a time")
	scenario := flag.String("scenario", "", "play this scenario instead of seeds")
	blind := flag.Bool("blind", false, "in a scenario, let faults go on until they do harm")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	debug.SetGCPercent(800) // schedules are short and leave nothing behind
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			fmt.Fprintln(os.Stderr, "phxsim: create profile:", err)
			os.Exit(2)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			fmt.Fprintln(os.Stderr, "phxsim: start profile:", err)
			os.Exit(2)
		}
		defer pprof.StopCPUProfile()
	}
	if *scenario != "" {
		os.Exit(play(*scenario, *blind, *lines, *quiet))
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) >> 10
	}
	start := time.Now()
	more := func(done uint64) bool {
		return *count == 0 && time.Since(start) < *forTime || done < *count
	}
	sum, failures := runAll(*workers, *seed, *step, *keep, more, func(v *sim.Violation) { report(v, *lines, *quiet, time.Since(start)) })
	took := time.Since(start)
	fmt.Printf("phxsim: %d schedules from seed %d in %v (%.0f/s, %.0f per second of CPU), %d steps, %d instances chosen, %d proposers told, %d terms, %d crashes, %d memberships, %d snapshots (%d refused), %d full disks, %d failed syncs, %d flipped bits (%d entries repaired, %d nodes lost), %d operations in %d histories, %d failures\n",
		sum.Schedules, *seed, took.Round(time.Millisecond), float64(sum.Schedules)/took.Seconds(), float64(sum.Schedules)/cpuSeconds(), sum.Steps, sum.Chosen, sum.Told, sum.Terms, sum.Crashes, sum.Members, sum.Snapshots, sum.Refused, sum.Full, sum.SyncFails, sum.Flips, sum.Mended, sum.Gone, sum.Ops, sum.Histories, failures)
	if failures > 0 {
		pprof.StopCPUProfile()
		os.Exit(1)
	}
}

// runAll runs seeds while there are more, several at a time, and ends after the first
// failure unless it is to keep on.
func runAll(workers int, seed, step uint64, keep bool, more func(done uint64) bool, failed func(*sim.Violation)) (sum sim.Stats, failures int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	taken := uint64(0)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if failures > 0 && !keep || !more(taken) {
			return 0, false
		}
		taken++
		return seed + (taken-1)*step, true
	}
	for range max(1, workers) {
		wg.Go(func() {
			for s, ok := take(); ok; s, ok = take() {
				st, v := sim.Run(s)
				mu.Lock()
				sum.Add(st)
				if v != nil {
					failures++
					failed(v)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return sum, failures
}

// cpuSeconds is what this process has used of the processors.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func play(name string, blind bool, lines int, quiet bool) (code int) {
	sc, ok := sim.FindScenario(name)
	if !ok {
		fmt.Fprintf(os.Stderr, "phxsim: there is no scenario %q; there are:\n", name)
		for _, sc := range sim.Scenarios {
			fmt.Fprintf(os.Stderr, "  %-24s %s\n", sc.Name, sc.Why)
		}
		return 2
	}
	start := time.Now()
	_, v := sc.Run(blind, !quiet)
	switch {
	case v == nil:
		fmt.Printf("phxsim: scenario %s holds\n", name)
		return 0
	case quiet:
		fmt.Printf("phxsim: FAIL rule=%s seed=%d after=%v\n", v.Rule, v.Seed, time.Since(start).Round(time.Millisecond))
		return 1
	}
	printTail(v, lines)
	fmt.Printf("phxsim: scenario %s: FAIL %v\n", name, v)
	return 1
}

func printTail(v *sim.Violation, lines int) {
	for _, l := range v.Trace[max(0, len(v.Trace)-lines):] {
		fmt.Println(l)
	}
}

func report(v *sim.Violation, lines int, quiet bool, after time.Duration) {
	if quiet {
		fmt.Printf("phxsim: FAIL rule=%s seed=%d after=%v\n", v.Rule, v.Seed, after.Round(time.Millisecond))
		return
	}
	_, again := sim.Explain(v.Seed)
	if again != nil {
		printTail(again, lines)
	}
	fmt.Printf("phxsim: FAIL %v\nrepeat with: go run ./internal/sim/cmd/phxsim -seed %d -n 1\n", v, v.Seed)
}
