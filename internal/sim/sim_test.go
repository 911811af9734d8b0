package sim

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var (
	simFor  = flag.Duration("sim.for", 15*time.Second, "how long to run fresh seeds")
	simSeed = flag.Uint64("sim.seed", 0, "run this seed only")
)

// fixedSeeds are those that every run takes, and those that once found a fault.
var fixedSeeds = []uint64{
	386, 10714, 17248, 17630, 17641, 17811, 18206, 18473, 18600, 18954, 19108, 20874, 34028, 100570,
}

func check(t *testing.T, seed uint64) Stats {
	t.Helper()
	st, v := Run(seed)
	if v == nil {
		return st
	}
	if _, again := Explain(seed); again != nil {
		t.Log("\n" + strings.Join(again.Trace[max(0, len(again.Trace)-60):], "\n"))
	}
	t.Fatalf("%v\nrepeat with: go run ./internal/sim/cmd/phxsim -seed %d -n 1", v, seed)
	return st
}

func TestFixedSeeds(t *testing.T) {
	var sum Stats
	for _, seed := range fixedSeeds {
		sum.Add(check(t, seed))
	}
	for seed := range uint64(200) {
		sum.Add(check(t, seed+1))
	}
	// A simulator that does nothing finds nothing.
	if sum.Chosen < 5000 || sum.Told < 4000 || sum.Terms < 200 || sum.Crashes < 500 || sum.Members < 100 || sum.Snapshots < 30 || sum.Refused < 5 ||
		sum.Flips < 50 || sum.Mended < 3 || sum.Gone < 3 || sum.Full < 20 || sum.SyncFails < 20 || sum.Ops < 1000 {
		t.Errorf("the schedules are too tame: %+v", sum)
	}
	t.Logf("%+v", sum)
}

func TestFreshSeeds(t *testing.T) {
	if *simSeed != 0 {
		check(t, *simSeed)
		return
	}
	if testing.Short() {
		t.Skip("fresh seeds take their time")
	}
	start := time.Now()
	var sum Stats
	for seed := uint64(start.UnixNano()) >> 10; time.Since(start) < *simFor; seed++ {
		sum.Add(check(t, seed))
	}
	t.Logf("%.0f schedules per second: %+v", float64(sum.Schedules)/time.Since(start).Seconds(), sum)
}

func TestSameSeedSameSchedule(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		a, _ := Run(seed)
		b, _ := Explain(seed)
		if a != b {
			t.Fatalf("seed %d: %+v, then %+v", seed, a, b)
		}
	}
}
