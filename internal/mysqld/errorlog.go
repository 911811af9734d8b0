package mysqld

import (
	"io"
	"os"
	"strings"
)

const (
	// maxErrorLog is the size above which a start moves the error log aside.
	maxErrorLog = 16 << 20
	// errorLogWindow is how much of the log's end is searched for a reason.
	errorLogWindow = 64 << 10
	// errorLogLines is how many lines a reason has at most.
	errorLogLines = 3
)

// lastErrors returns what the error log says since offset about why the server
// ended: its last [ERROR] lines, or its last lines if there is none.
func lastErrors(path string, offset int64) string {
	f, err := os.Open(path)
	if err != nil {
		return "its error log cannot be read: " + err.Error()
	}
	defer f.Close() //nolint:errcheck // opened for reading
	st, err := f.Stat()
	if err != nil {
		return "its error log cannot be read: " + err.Error()
	}
	offset = max(offset, st.Size()-errorLogWindow)
	b, err := io.ReadAll(io.NewSectionReader(f, offset, errorLogWindow))
	if err != nil {
		return "its error log cannot be read: " + err.Error()
	}
	return pickErrors(string(b))
}

func pickErrors(text string) string {
	var all, marked []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		all = append(all, line)
		if strings.Contains(line, "[ERROR]") || strings.Contains(line, "mysqld: ") && !strings.Contains(line, "[System]") {
			marked = append(marked, line)
		}
	}
	if len(marked) == 0 {
		marked = all
	}
	if len(marked) == 0 {
		return "its error log is empty"
	}
	return strings.Join(marked[max(0, len(marked)-errorLogLines):], " | ")
}
