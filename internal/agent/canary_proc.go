package agent

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// writtenBy is how many bytes a process has written, as far as the system tells.
func writtenBy(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "wchar: "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}

// ticksOf is how long a process has run on a processor, in units of the system (10 ms).
func ticksOf(pid int) (ticks uint64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	return parseTicks(b)
}

// parseTicks reads utime and stime, the 14th and 15th field; the 2nd is a name in
// parentheses that may hold anything.
func parseTicks(stat []byte) (uint64, bool) {
	_, rest, ok := bytes.Cut(stat, []byte(") "))
	for ok && bytes.Contains(rest, []byte(") ")) {
		_, rest, ok = bytes.Cut(rest, []byte(") "))
	}
	f := strings.Fields(string(rest))
	if !ok || len(f) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseUint(f[11], 10, 64)
	system, err2 := strconv.ParseUint(f[12], 10, 64)
	return user + system, err1 == nil && err2 == nil
}
