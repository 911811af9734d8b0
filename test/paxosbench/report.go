package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// cell is a place in the table.
type cell struct{ groups, size, proposers int }

// Names of the floors.
const (
	floorAppend    = "1 KB append + fdatasync"
	floorOverwrite = "1 KB overwrite + fdatasync"
	floorShared    = "the same by three at once, until two are done"
)

// report collects samples and prints medians.
type report struct {
	systems []string // in order of columns; the first is ours
	cells   []cell
	samples map[cell]map[string][]sample
	floors  map[string][]result // by the names of floors
	faults  []string
}

func (r *report) add(c cell, sys string, s sample) {
	if r.samples[c] == nil {
		r.samples[c] = map[string][]sample{}
		r.cells = append(r.cells, c)
	}
	r.samples[c][sys] = append(r.samples[c][sys], s)
	if s.Errors > 0 {
		r.faults = append(r.faults, fmt.Sprintf("%s, %v: %d proposals failed", sys, c, s.Errors))
	}
}

// median of one number of some samples; 0 for none.
func median[S any](list []S, f func(S) float64) float64 {
	if len(list) == 0 {
		return 0
	}
	v := make([]float64, len(list))
	for i, s := range list {
		v[i] = f(s)
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func rate(s sample) float64 { return float64(s.Commits) / s.Time.Seconds() }

func cpuPerCommit(s sample) float64 {
	return float64(s.CPU) / float64(time.Microsecond) / float64(max(s.Commits, 1))
}

// memory is the peak of the largest node in MB.
func memory(s sample) float64 { return float64(s.Memory) / 1e6 }

// against is the ratio of the first system's rate to that of its best peer, whose
// name it returns; 0 without either.
func (r *report) against(c cell) (float64, string) {
	ours := median(r.samples[c][r.systems[0]], rate)
	best, name := 0.0, ""
	for _, sys := range r.systems[1:] {
		if strings.HasPrefix(sys, "ours") {
			continue
		}
		if v := median(r.samples[c][sys], rate); v > best {
			best, name = v, sys
		}
	}
	if best == 0 {
		return 0, ""
	}
	return ours / best, name
}

// geometricMean of the ratios of all cells that have one.
func (r *report) geometricMean() (float64, int) {
	sum, n := 0.0, 0
	for _, c := range r.cells {
		if v, _ := r.against(c); v > 0 {
			sum += math.Log(v)
			n++
		}
	}
	if n == 0 {
		return 0, 0
	}
	return math.Exp(sum / float64(n)), n
}

func (r *report) print(w io.Writer) {
	r.printFloors(w)
	fmt.Fprintf(w, "| groups | size | proposers |")
	for _, sys := range r.systems {
		fmt.Fprintf(w, " %s |", sys)
	}
	fmt.Fprintf(w, " ratio to the best peer | p50 in floors |\n|---|---|---|%s---|---|\n", strings.Repeat("---|", len(r.systems)))
	slices.SortFunc(r.cells, func(a, b cell) int {
		return slices.Compare([]int{a.groups, a.size, a.proposers}, []int{b.groups, b.size, b.proposers})
	})
	for _, c := range r.cells {
		r.printCell(w, c)
	}
	fmt.Fprintf(w, "\nEach cell: commits/s; p50 / p99 in ms; us of CPU per commit of all three nodes; peak memory of a node in MB.\n")
	fmt.Fprintf(w, "p50 in floors: the p50 of %s over that of the first floor.\n\n", r.systems[0])
	r.printGoals(w)
	for _, f := range r.faults {
		fmt.Fprintf(w, "fault: %s\n", f)
	}
}

func (r *report) printCell(w io.Writer, c cell) {
	fmt.Fprintf(w, "| %d | %s | %d |", c.groups, sizeName(c.size), c.proposers)
	for _, sys := range r.systems {
		fmt.Fprintf(w, " %s |", describe(r.samples[c][sys]))
	}
	ratio, floors := "-", "-"
	if v, name := r.against(c); name != "" {
		ratio = fmt.Sprintf("%.2f (%s)", v, name)
	}
	if v := r.inFloors(c); v > 0 {
		floors = fmt.Sprintf("%.1f", v)
	}
	fmt.Fprintf(w, " %s | %s |\n", ratio, floors)
}

// inFloors is the first system's p50 over that of the floor; 0 without either.
func (r *report) inFloors(c cell) float64 {
	floor := median(r.floors[floorAppend], p50)
	if floor == 0 {
		return 0
	}
	return median(r.samples[c][r.systems[0]], func(s sample) float64 { return p50(s.result) }) / floor
}

func p50(r result) float64 { return ms(r.P50) }

// The goals of the first system.
const (
	goalMean   = 1.5     // ratio to the best peer, geometric mean
	goalFloors = 2.1     // p50 at one proposer, small values
	goalCPU    = 30      // us per commit of all nodes, one group, 100 proposers, small values
	goalGroups = 15_000  // commits/s, 20 groups, 100 proposers, 1 KB
	goalMemory = 100     // MB per node in every cell
	smallValue = 1 << 10 // the largest of the small values
)

// printGoals says how the first system stands to its goals.
func (r *report) printGoals(w io.Writer) {
	if mean, n := r.geometricMean(); n > 0 {
		var below []string
		for _, c := range r.cells {
			if v, name := r.against(c); name != "" && v < 1 {
				below = append(below, fmt.Sprintf("%v %.2f", c, v))
			}
		}
		fmt.Fprintf(w, "Ratio to the best peer, geometric mean of %d cells: %.2f (goal %.1f); below level: %d%s\n", n, mean, goalMean, len(below), list(below))
	}
	goal := func(what, format string, goal float64, count func(cell) bool, of func(cell) float64) {
		var got []string
		for _, c := range r.cells {
			if v := of(c); v > 0 && count(c) {
				got = append(got, fmt.Sprintf("%v "+format, c, v))
			}
		}
		if len(got) > 0 {
			fmt.Fprintf(w, "%s (goal "+format+")%s\n", what, goal, list(got))
		}
	}
	ours := func(f func(sample) float64) func(cell) float64 {
		return func(c cell) float64 { return median(r.samples[c][r.systems[0]], f) }
	}
	goal("p50 at one proposer in floors", "%.1f", goalFloors, func(c cell) bool { return c.proposers == 1 && c.size <= smallValue }, r.inFloors)
	goal("us of CPU per commit at 100 proposers", "%.0f", goalCPU, func(c cell) bool { return c.groups == 1 && c.proposers == 100 && c.size <= smallValue }, ours(cpuPerCommit))
	goal("Commits/s of 20 groups", "%.0f", goalGroups, func(c cell) bool { return c.groups == 20 && c.proposers == 100 && c.size == smallValue }, ours(rate))
	most, where := 0.0, cell{}
	for _, c := range r.cells {
		if v := ours(memory)(c); v > most {
			most, where = v, c
		}
	}
	goal("Most MB of memory of a node", "%.0f", goalMemory, func(c cell) bool { return c == where }, ours(memory))
}

// list puts items behind a colon.
func list(items []string) string {
	if len(items) == 0 {
		return ""
	}
	return ": " + strings.Join(items, ", ")
}

func (c cell) String() string {
	if c.groups == 1 {
		return fmt.Sprintf("%s/%d", sizeName(c.size), c.proposers)
	}
	return fmt.Sprintf("%d groups %s/%d", c.groups, sizeName(c.size), c.proposers)
}

func (r *report) printFloors(w io.Writer) {
	for _, name := range []string{floorAppend, floorOverwrite, floorShared} {
		fs := r.floors[name]
		if len(fs) == 0 {
			continue
		}
		fmt.Fprintf(w, "floor, %s: %.0f/s, p50 %.2f ms, p99 %.2f ms\n", name,
			median(fs, func(f result) float64 { return float64(f.Commits) / f.Time.Seconds() }),
			median(fs, p50), median(fs, func(f result) float64 { return ms(f.P99) }))
	}
	fmt.Fprintln(w)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func describe(s []sample) string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f; %.2f / %.1f; %.0f us; %.0f", median(s, rate),
		median(s, func(s sample) float64 { return p50(s.result) }), median(s, func(s sample) float64 { return ms(s.P99) }),
		median(s, cpuPerCommit), median(s, memory))
}

func sizeName(n int) string {
	if n >= 1024 && n%1024 == 0 {
		return fmt.Sprintf("%d KB", n/1024)
	}
	return fmt.Sprintf("%d B", n)
}
