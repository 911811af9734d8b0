// Command phxmutants plants faults into the code, one after the other, and prints a
// table: who finds each, and after how long. It fails when one is not found.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/phxsql/phxsql/internal/sim/mutants"
)

func main() {
	limit := flag.Duration("for", 3*time.Minute, "how long to hunt one mutant")
	seed := flag.Uint64("seed", 1, "the first seed")
	only := flag.String("run", "", "run the mutants whose names match this pattern only")
	flag.Parse()
	missed, err := run(*limit, *seed, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "phxmutants:", err)
		os.Exit(2)
	}
	if missed > 0 {
		fmt.Fprintf(os.Stderr, "phxmutants: %d mutants were not found\n", missed)
		os.Exit(1)
	}
}

func run(limit time.Duration, seed uint64, only string) (missed int, err error) {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return 0, fmt.Errorf("read pattern: %w", err)
	}
	root, err := mutants.Root()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "phxmutants")
	if err != nil {
		return 0, fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	fmt.Println("| mutant | the fault | found by | breaks | seed, runs | after |\n| --- | --- | --- | --- | --- | --- |")
	for _, m := range mutants.All {
		if !pattern.MatchString(m.Name) {
			continue
		}
		r, err := m.Find(context.Background(), root, dir, seed, limit)
		if err != nil {
			return missed, fmt.Errorf("hunt %s: %w", m.Name, err)
		}
		if !r.Found {
			missed++
			fmt.Printf("| %s | %s | NOT FOUND by %s in %v | | | |\n", m.Name, m.Why, m.By(), limit)
			continue
		}
		seed := ""
		if m.Scenario == "" && r.Runs > 0 {
			seed = fmt.Sprintf("%d, %d", r.Seed, r.Runs)
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %v |\n", m.Name, m.Why, m.By(), r.Rule, seed, r.After.Round(time.Millisecond))
	}
	return missed, nil
}
