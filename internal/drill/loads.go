package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// The loads of a drill leave the machine some air: it also runs the cluster.
const (
	setPace        = 12 * time.Millisecond
	registersEra   = 8 * time.Second
	registersPause = 90 * time.Millisecond
	registersPorts = 5  // clients per port
	registersIdle  = 10 // and those that are idle
)

// startSet starts the Workload as one of several loads.
func startSet(ctx context.Context, s Site) (Load, error) {
	w, err := startWorkload(ctx, &Workload{target: s.Target, rec: s.Rec, pace: setPace, turns: s.Pace})
	return (*setLoad)(w), err
}

type setLoad Workload

// Stop ends the writers.
func (l *setLoad) Stop() { (*Workload)(l).Stop() }

// Judge looks for every row on every node.
func (l *setLoad) Judge(ctx context.Context) (Finding, error) {
	w := (*Workload)(l)
	f := Finding{Load: "set", Acked: w.Count(Acknowledged), Facts: fmt.Sprintf("%d inserts acknowledged, %d refused, %d unknown", w.Count(Acknowledged), w.Count(Refused), w.Count(Unknown))}
	for _, p := range w.target.Ports() {
		list, err := ids(ctx, w.target, p.RO)
		if err != nil {
			return f, err
		}
		there := make(map[int64]bool, len(list))
		for _, id := range list {
			there[id] = true
		}
		w.mu.Lock()
		f.Wrong = append(f.Wrong, judgeSet(p.Node, "rows", w.outcomes, there)...)
		w.mu.Unlock()
	}
	return f, nil
}

// judgeSet holds outcomes against what is there.
func judgeSet(node int, what string, told map[int64]Outcome, there map[int64]bool) []string {
	found := map[string][]int64{}
	for id, o := range told {
		switch {
		case o == Acknowledged && !there[id]:
			found[lostRows] = append(found[lostRows], id)
		case o == Refused && there[id]:
			found[ghostRows] = append(found[ghostRows], id)
		}
	}
	for id := range there {
		if told[id] == 0 {
			found[strangeRows] = append(found[strangeRows], id)
		}
	}
	return listWrong(node, what, found)
}

// What can be wrong with rows.
const (
	lostRows    = "acknowledged and lost"
	ghostRows   = "refused and there"
	strangeRows = "there and written by nobody"
)

// listWrong tells what is wrong with things on a node, by how it is wrong.
func listWrong(node int, what string, found map[string][]int64) []string {
	var wrong []string
	for _, how := range slices.Sorted(maps.Keys(found)) {
		ids := found[how]
		slices.Sort(ids)
		wrong = append(wrong, fmt.Sprintf("node %d: %d %s are %s, such as %v", node, len(ids), what, how, ids[:min(5, len(ids))]))
	}
	return wrong
}

// startRegisters starts the Registers as one of several loads.
func startRegisters(ctx context.Context, s Site) (Load, error) {
	r, err := startRegistersOf(ctx, &Registers{target: s.Target, rec: s.Rec, dir: s.Dir, era: registersEra, pause: registersPause, turns: s.Pace, idlers: registersIdle, staleReads: s.StaleReads}, registersPorts)
	if err != nil {
		return nil, err
	}
	return registersLoad{r}, nil
}

type registersLoad struct{ *Registers }

// Judge looks for an order of all operations.
func (l registersLoad) Judge(context.Context) (Finding, error) {
	n, unknown := l.Counts()
	f := Finding{Load: "registers", Acked: n - unknown, Facts: fmt.Sprintf("%d operations, %d of them of unknown outcome; %d reads sent on connections from before a takeover", n, unknown, l.surprises)}
	err := l.Verify()
	switch {
	case errors.Is(err, errHistoryTooLong):
		return f, err
	case err != nil && l.staleReads:
		f.Noted = append(f.Noted, staleNote+": "+err.Error())
	case err != nil:
		f.Wrong = append(f.Wrong, err.Error())
	}
	return f, nil
}
