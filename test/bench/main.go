// Command bench compares a PhxSQL cluster with what its users have today, on the
// same machine in the same run: one MySQL server that syncs every commit, and
// three servers with lossless semi-synchronous replication that is as durable.
//
// It runs sysbench against each in turn, round after round, and prints medians
// and ratios. Absolute figures of one machine say little; ratios of one run do.
//
//	go run ./test/bench -threads 1,16,64,200 -time 7s -rounds 3
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/engine"
)

type settings struct {
	threads []int
	tests   []string
	systems []string
	time    time.Duration
	rounds  int
	tables  int
	rows    int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	s, err := readFlags()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "phxbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in, err := engine.Ensure(ctx, engine.Options{Progress: func(l string) { fmt.Println(l) }})
	if err != nil {
		return err
	}
	tool, err := engine.FetchTool(ctx, "sysbench")
	if err != nil {
		return err
	}
	fmt.Printf("engine: %s; sysbench: %s\n", in, tool.Path)
	b := &bench{settings: s, tool: tool}
	defer b.close()
	for _, name := range s.systems {
		fmt.Printf("starting %s\n", name)
		sys, err := start(ctx, name, filepath.Join(dir, name), in)
		if err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		b.systems = append(b.systems, sys)
		if err := b.prepare(ctx, sys); err != nil {
			return err
		}
	}
	if err := b.all(ctx); err != nil {
		return err
	}
	b.report(os.Stdout)
	return nil
}

func readFlags() (settings, error) {
	var s settings
	threads := flag.String("threads", "1,16,64,200", "numbers of sysbench threads")
	tests := flag.String("tests", "oltp_insert,oltp_write_only,oltp_read_write,oltp_point_select", "sysbench scripts")
	systems := flag.String("systems", "phxsql,standalone,semisync", "what to compare; unbounded is phxsql without flow control")
	flag.DurationVar(&s.time, "time", 7*time.Second, "length of one cell")
	flag.IntVar(&s.rounds, "rounds", 3, "rounds; medians are printed")
	flag.IntVar(&s.tables, "tables", 10, "tables")
	flag.IntVar(&s.rows, "rows", 20000, "rows of a table")
	flag.Parse()
	for _, t := range strings.Split(*threads, ",") {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 {
			return s, fmt.Errorf("read flags: %q is not a number of threads", t)
		}
		s.threads = append(s.threads, n)
	}
	s.tests, s.systems = strings.Split(*tests, ","), strings.Split(*systems, ",")
	return s, nil
}

// cell is one measurement's place.
type cell struct {
	test    string
	threads int
	system  string
}

// sample is one measurement.
type sample struct {
	tps     float64
	p95     float64 // milliseconds
	drained float64 // transactions per second with the followers' catch-up counted
	backlog float64 // seconds that the catch-up took
}

type bench struct {
	settings
	tool    engine.Tool
	systems []system
	samples map[cell][]sample
}

func (b *bench) close() {
	for _, s := range b.systems {
		s.close()
	}
}

func (b *bench) sysbench(ctx context.Context, sys system, test string, threads int, args ...string) *exec.Cmd {
	host, port, user, password := sys.address()
	base := []string{test, "--db-driver=mysql", "--mysql-host=" + host, "--mysql-port=" + port, "--mysql-user=" + user, "--mysql-password=" + password,
		"--mysql-db=sbtest", "--mysql-ssl=off", "--tables=" + strconv.Itoa(b.tables), "--table-size=" + strconv.Itoa(b.rows), "--rand-type=uniform",
		"--threads=" + strconv.Itoa(threads)}
	return b.tool.Command(ctx, append(base, args...)...)
}

func (b *bench) prepare(ctx context.Context, sys system) error {
	out, err := b.sysbench(ctx, sys, "oltp_insert", 4, "prepare").CombinedOutput()
	if err != nil {
		return fmt.Errorf("prepare %s: %w: %s", sys.name(), err, tail(out))
	}
	return sys.drain(ctx)
}

// all runs every cell of every round, the systems next to each other.
func (b *bench) all(ctx context.Context) error {
	b.samples = map[cell][]sample{}
	for round := range b.rounds {
		for _, test := range b.tests {
			for _, threads := range b.threads {
				for _, sys := range b.systems {
					s, err := b.one(ctx, sys, test, threads)
					if err != nil {
						return err
					}
					c := cell{test, threads, sys.name()}
					b.samples[c] = append(b.samples[c], s)
					fmt.Printf("round %d  %-18s %4d threads  %-10s %9.0f tps  p95 %7.1f ms  drained %9.0f  backlog %5.1f s\n",
						round+1, test, threads, sys.name(), s.tps, s.p95, s.drained, s.backlog)
				}
			}
		}
	}
	return nil
}

func (b *bench) one(ctx context.Context, sys system, test string, threads int) (sample, error) {
	out, err := b.sysbench(ctx, sys, test, threads, fmt.Sprintf("--time=%d", int(b.time.Seconds())), "--report-interval=0", "--mysql-ignore-errors=1062,1213,1205", "run").CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("run %s on %s: %w: %s", test, sys.name(), err, tail(out))
	}
	s, done, err := parse(string(out))
	if err != nil {
		return sample{}, fmt.Errorf("run %s on %s: %w: %s", test, sys.name(), err, tail(out))
	}
	before := time.Now()
	if err := sys.drain(ctx); err != nil {
		return sample{}, err
	}
	s.backlog = time.Since(before).Seconds()
	s.drained = done / (s.seconds(done) + s.backlog)
	return s, nil
}

func (s sample) seconds(done float64) float64 { return done / s.tps }

// parse reads sysbench's report: transactions and 95th percentile.
func parse(out string) (sample, float64, error) {
	var s sample
	var done float64
	for _, l := range strings.Split(out, "\n") {
		f := strings.Fields(l)
		switch {
		case len(f) >= 3 && f[0] == "transactions:":
			done, _ = strconv.ParseFloat(f[1], 64)
			s.tps, _ = strconv.ParseFloat(strings.TrimPrefix(f[2], "("), 64)
		case len(f) == 3 && f[0] == "95th":
			s.p95, _ = strconv.ParseFloat(f[2], 64)
		}
	}
	if s.tps == 0 {
		return s, 0, fmt.Errorf("no transactions in sysbench's report")
	}
	return s, done, nil
}

func tail(out []byte) string {
	t := strings.TrimSpace(string(out))
	return t[max(0, len(t)-600):]
}

func median(xs []sample, f func(sample) float64) float64 {
	var v []float64
	for _, x := range xs {
		v = append(v, f(x))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// report prints medians, and what the first system reaches of each other one.
func (b *bench) report(w *os.File) {
	for _, test := range b.tests {
		fmt.Fprintf(w, "\n### %s, transactions/s (p95 ms), medians of %d\n\n| threads |", test, b.rounds)
		for _, s := range b.systems {
			fmt.Fprintf(w, " %s | drained |", s.name())
		}
		for _, s := range b.systems[1:] {
			fmt.Fprintf(w, " %s / %s | drained |", b.systems[0].name(), s.name())
		}
		fmt.Fprintf(w, "\n|%s\n", strings.Repeat(" --- |", 1+2*len(b.systems)+2*(len(b.systems)-1)))
		for _, threads := range b.threads {
			b.row(w, test, threads)
		}
	}
}

func (b *bench) row(w *os.File, test string, threads int) {
	get := func(s system, f func(sample) float64) float64 {
		return median(b.samples[cell{test, threads, s.name()}], f)
	}
	tps, p95, drained := func(s sample) float64 { return s.tps }, func(s sample) float64 { return s.p95 }, func(s sample) float64 { return s.drained }
	fmt.Fprintf(w, "| %d |", threads)
	for _, s := range b.systems {
		fmt.Fprintf(w, " %.0f (%.1f) | %.0f |", get(s, tps), get(s, p95), get(s, drained))
	}
	for _, s := range b.systems[1:] {
		fmt.Fprintf(w, " %.2f | %.2f |", get(b.systems[0], tps)/get(s, tps), get(b.systems[0], drained)/get(s, drained))
	}
	fmt.Fprintln(w)
}
