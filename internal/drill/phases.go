package drill

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Failover is a promotion, as the new master's log tells it.
type Failover struct {
	Node   int       `json:"node"`
	Open   time.Time `json:"open"` // when clients got through
	Reason string    `json:"reason"`
	Took   string    `json:"took"`
	Phases []Phase   `json:"phases"`
}

// Phase is a part of a failover, named by what ends it.
type Phase struct {
	Name string `json:"name"`
	Took string `json:"took"`
}

// firstCommit is the phase from the open gate to the first acknowledged write.
const firstCommit = "first_commit"

// addFirstCommits adds that phase to failovers, which must be in the order in which they
// came. Acknowledgements are nanoseconds since begun. One that was followed by the next
// failover before anything was acknowledged has none.
func addFirstCommits(fs []Failover, begun time.Time, acks []int64) {
	acks = slices.Sorted(slices.Values(acks))
	for i := range fs {
		open := int64(fs[i].Open.Sub(begun))
		at, _ := slices.BinarySearch(acks, open)
		if at == len(acks) || i+1 < len(fs) && acks[at] > int64(fs[i+1].Open.Sub(begun)) {
			continue
		}
		took := time.Duration(acks[at] - open).Round(10 * time.Microsecond)
		fs[i].Phases = append(fs[i].Phases, Phase{firstCommit, took.String()})
	}
}

// phaseTimes are the times of each phase of all failovers; "all" is the whole way to the
// open gate.
func phaseTimes(fs []Failover) map[string][]time.Duration {
	out := map[string][]time.Duration{}
	add := func(name, took string) {
		if d, err := time.ParseDuration(took); err == nil {
			out[name] = append(out[name], d)
		}
	}
	for _, f := range fs {
		add("all", f.Took)
		for _, p := range f.Phases {
			add(p.Name, p.Took)
		}
	}
	return out
}

// promoted marks the line in a node's log.
const promoted = `msg="this node is the master"`

// readFailovers finds the promotions in a node's log.
func readFailovers(node int, path string) ([]Failover, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read log of node %d: %w", node, err)
	}
	defer f.Close()
	var out []Failover
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.Contains(lines.Text(), promoted) {
			out = append(out, parseFailover(node, lines.Text()))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read log of node %d: %w", node, err)
	}
	return out, nil
}

func parseFailover(node int, line string) Failover {
	f := Failover{Node: node}
	for _, a := range attributes(line) {
		switch name, phase := strings.CutPrefix(a[0], "phases."); {
		case a[0] == "time":
			f.Open, _ = time.Parse(time.RFC3339Nano, a[1]) // else zero: it is not placed on the timeline
		case a[0] == "duration":
			f.Took = a[1]
		case name == "reason":
			f.Reason = a[1]
		case phase:
			f.Phases = append(f.Phases, Phase{name, a[1]})
		}
	}
	return f
}

// attributes splits a line of slog's text format into keys and values.
func attributes(line string) [][2]string {
	var out [][2]string
	for line != "" {
		key, rest, ok := strings.Cut(line, "=")
		if !ok {
			return out
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, line, _ = strings.Cut(rest[1:], `"`)
			line = strings.TrimPrefix(line, " ")
		} else {
			value, line, _ = strings.Cut(rest, " ")
		}
		out = append(out, [2]string{strings.TrimSpace(key), value})
	}
	return out
}
