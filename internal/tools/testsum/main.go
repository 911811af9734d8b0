// Command testsum reads the output of "go test -json" and writes what a person
// wants of it: a line for each package, all output of what failed, and at the end
// one line that counts: "N passed, N failed, N skipped".
//
// It ends with 1 if anything failed, if a package did not build, or if there was
// no test at all. Subtests count; a package that fails without a failing test
// counts as one failure.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of "go test -json", see "go doc test2json" and the build
// events of "go help buildjson".
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// maxKept limits the output that is kept of one test; the oldest goes first.
const maxKept = 1 << 20

// maxLine limits one line of the input.
const maxLine = 16 << 20

type summary struct {
	w                       io.Writer
	show                    string // packages whose output is written as it comes
	passed, failed, skipped int
	output                  map[string][]string // by test
	kept                    map[string]int
	failures                map[string]int // failed tests by package
}

func main() {
	show := flag.String("show", "", "write the output of packages whose path contains this as it comes")
	flag.Parse()
	s := newSummary(os.Stdout, *show)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	if !s.finish() {
		os.Exit(1)
	}
}

func newSummary(w io.Writer, show string) *summary {
	return &summary{w: w, show: show, output: map[string][]string{}, kept: map[string]int{}, failures: map[string]int{}}
}

func (s *summary) read(r io.Reader) error {
	br := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := br.ReadString('\n')
		if len(line) > maxLine {
			return fmt.Errorf("read test output: a line of %d bytes", len(line))
		}
		if line != "" {
			s.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
}

// line takes one line in. What is no event, such as the words of go itself, is
// passed on.
func (s *summary) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(s.w, line)
		return
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		s.keep(key, e)
	case "build-output":
		fmt.Fprint(s.w, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(key, e)
		}
		delete(s.output, key)
		delete(s.kept, key)
	}
}

func (s *summary) keep(key string, e event) {
	if s.show != "" && strings.Contains(e.Package, s.show) && e.Test != "" {
		if !strings.HasPrefix(e.Output, "===") {
			fmt.Fprint(s.w, e.Output)
		}
		return
	}
	s.output[key] = append(s.output[key], e.Output)
	s.kept[key] += len(e.Output)
	for s.kept[key] > maxKept {
		s.kept[key] -= len(s.output[key][0])
		s.output[key] = s.output[key][1:]
	}
}

func (s *summary) endTest(key string, e event) {
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		s.skipped++
		fmt.Fprintf(s.w, "SKIP  %s %s\n%s", e.Package, e.Test, strings.Join(reasons(s.output[key]), ""))
	case "fail":
		s.failed++
		s.failures[e.Package]++
		fmt.Fprintf(s.w, "FAIL  %s %s\n%s", e.Package, e.Test, strings.Join(s.output[key], ""))
	}
}

// reasons drops the framework's own lines.
func reasons(lines []string) []string {
	var out []string
	for _, l := range lines {
		if t := strings.TrimSpace(l); !strings.HasPrefix(t, "===") && !strings.HasPrefix(t, "---") {
			out = append(out, l)
		}
	}
	return out
}

func (s *summary) endPackage(e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(s.w, "ok    %s %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		if s.failures[e.Package] == 0 { // it did not build, panicked, or timed out
			s.failed++
			fmt.Fprint(s.w, strings.Join(s.output[e.Package+" "], ""))
			s.unfinished(e.Package)
		}
		fmt.Fprintf(s.w, "FAIL  %s %.1fs\n", e.Package, e.Elapsed)
	}
}

// unfinished writes the output of tests that never ended.
func (s *summary) unfinished(pkg string) {
	for key, lines := range s.output {
		if strings.HasPrefix(key, pkg+" ") && key != pkg+" " {
			fmt.Fprintf(s.w, "UNFINISHED  %s\n%s", key, strings.Join(lines, ""))
		}
	}
}

// finish writes the closing line and reports whether all is well.
func (s *summary) finish() bool {
	if s.passed+s.failed == 0 {
		fmt.Fprintln(s.w, "no test has run")
	}
	fmt.Fprintf(s.w, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return s.failed == 0 && s.passed > 0
}
