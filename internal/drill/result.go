package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is how the cluster bore a fault, or several that overlapped.
type Result struct {
	Fault  string
	Family string        `json:",omitempty"`
	Outage bool          `json:",omitempty"` // the cluster need not serve before the mend
	Pause  time.Duration // longest time without an acknowledged write
	Back   time.Duration // from the mend until every node was well again
}

// overlapping is the family of faults that overlapped: nobody can tell which of them made
// the cluster wait.
const overlapping = "several at once"

// results are the times of all episodes after which all was well.
func results(bouts []Bout) []Result {
	var rs []Result
	first := 0
	for i, b := range bouts {
		if b.Well == 0 {
			continue
		}
		r := Result{Fault: b.Kind, Family: b.Family, Outage: b.Outage, Pause: b.Pause, Back: time.Duration(b.Well - b.Mended)}
		if b.Refused != "" {
			r.Fault += " (refused)"
		}
		for _, o := range bouts[first:i] {
			r.Fault, r.Family, r.Outage, r.Pause = overlapping, overlapping, true, max(r.Pause, o.Pause)
		}
		rs = append(rs, r)
		first = i + 1
	}
	return rs
}

// Summary renders the times of each kind of fault: how often, median, worst.
func Summary(rs []Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-40s %5s %22s %22s\n", "fault", "times", "without commits", "all well after mend")
	names, by := grouped(rs, func(r Result) string { return r.Fault })
	for _, name := range names {
		pause, back := sorted(by[name])
		fmt.Fprintf(&b, "%-40s %5d %22s %22s\n", name, len(by[name]), medianAndWorst(pause), medianAndWorst(back))
	}
	return b.String()
}

// grouped are results by a name, and the names in the order in which they came.
func grouped(rs []Result, name func(Result) string) ([]string, map[string][]Result) {
	var names []string
	by := map[string][]Result{}
	for _, r := range rs {
		n := name(r)
		if by[n] == nil {
			names = append(names, n)
		}
		by[n] = append(by[n], r)
	}
	return names, by
}

// sorted are the times of results, each ascending.
func sorted(rs []Result) (pause, back []time.Duration) {
	for _, r := range rs {
		pause, back = append(pause, r.Pause), append(back, r.Back)
	}
	slices.Sort(pause)
	slices.Sort(back)
	return pause, back
}

func medianAndWorst(ds []time.Duration) string {
	return short(ds[len(ds)/2]) + ", worst " + short(ds[len(ds)-1])
}

// percentile is the smallest of ascending times that so many percent do not exceed.
func percentile(ds []time.Duration, percent int) time.Duration {
	return ds[max(0, (len(ds)*percent+99)/100-1)]
}

// markdown renders results as the rows of a table, a row for each name.
func markdown(head string, rs []Result, name func(Result) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | times | without commits: median | 99 of 100 | longest | all well after the mend: median | 99 of 100 | longest |\n| --- |%s\n", head, strings.Repeat(" ---: |", 7))
	names, by := grouped(rs, name)
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(&b, "| %s | %d |", n, len(by[n]))
		pause, back := sorted(by[n])
		for _, ds := range [][]time.Duration{pause, back} {
			fmt.Fprintf(&b, " %s | %s | %s |", short(percentile(ds, 50)), short(percentile(ds, 99)), short(ds[len(ds)-1]))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// familyName separates faults during which the cluster must serve.
func familyName(r Result) string {
	if r.Outage && r.Family != overlapping {
		return r.Family + ", service may stop"
	}
	return r.Family
}
