package drill

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// alarms are what an agent writes when it finds a promise broken. It may have mended the
// harm by itself, so that nothing is to be seen of it at the end.
var alarms = []string{
	"transactions taken back that may have been acknowledged",
	"the server holds transactions that the log does not",
	"this node's rows differ",
	"new data refused",
}

// crashes begin the last words of a process whose invariant was broken.
var crashes = []string{"panic: ", "fatal error: "}

// maxAlarmLine is the longest line of a log that is looked at, bytes.
const maxAlarmLine = 1 << 20

// findAlarms returns the first line of a log for each alarm and each crash that is in it.
func findAlarms(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("look for alarms: %w", err)
	}
	defer f.Close()
	var found []string
	seen := map[string]bool{}
	note := func(what, line string) {
		if !seen[what] {
			seen[what] = true
			found = append(found, line)
		}
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxAlarmLine)
	for lines.Scan() {
		for _, a := range alarms {
			if strings.Contains(lines.Text(), a) {
				note(a, lines.Text())
			}
		}
		for _, c := range crashes {
			if strings.HasPrefix(lines.Text(), c) {
				note(c, lines.Text())
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("look for alarms in %s: %w", path, err)
	}
	return found, nil
}

// hearAlarms notes what the agents themselves have found broken.
func (r *run) hearAlarms() error {
	for _, n := range r.c.Nodes {
		found, err := findAlarms(n.Log())
		if err != nil {
			return err
		}
		for _, line := range found {
			r.broken("node %d says: %s", n.ID, line)
		}
	}
	return nil
}
