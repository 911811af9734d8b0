package main

import (
	"bytes"
	"strings"
	"testing"
)

func sum(t *testing.T, show, input string) (string, bool) {
	t.Helper()
	var b bytes.Buffer
	s := newSummary(&b, show)
	if err := s.read(strings.NewReader(input)); err != nil {
		t.Fatal(err)
	}
	ok := s.finish()
	return b.String(), ok
}

const good = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"failover: 0.8s\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: no namespace here\n"}
{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}
{"Action":"pass","Package":"p","Elapsed":0.5}
`

func TestGood(t *testing.T) {
	out, ok := sum(t, "", good)
	want := "SKIP  p TestB\n    b_test.go:1: no namespace here\nok    p 0.5s\n1 passed, 0 failed, 1 skipped\n"
	if !ok || out != want {
		t.Errorf("%v\n%s", ok, out)
	}
}

func TestShow(t *testing.T) {
	if out, _ := sum(t, "p", good); !strings.Contains(out, "failover: 0.8s\n") || strings.Contains(out, "=== RUN") {
		t.Errorf("%s", out)
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"test": {good + `{"Action":"output","Package":"q","Test":"TestC","Output":"    c_test.go:1: wrong\n"}
{"Action":"fail","Package":"q","Test":"TestC","Elapsed":0.1}
{"Action":"fail","Package":"q","Elapsed":0.2}
`, []string{"FAIL  q TestC\n    c_test.go:1: wrong\nFAIL  q 0.2s\n", "1 passed, 1 failed, 1 skipped\n"}},
		"build": {good + `{"ImportPath":"q","Action":"build-output","Output":"q.go:1: undefined: x\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"start","Package":"q"}
{"Action":"output","Package":"q","Output":"FAIL\tq [build failed]\n"}
{"Action":"fail","Package":"q","Elapsed":0,"FailedBuild":"q"}
`, []string{"q.go:1: undefined: x\n", "[build failed]", "1 passed, 1 failed, 1 skipped\n"}},
		"panic": {good + `{"Action":"output","Package":"q","Test":"TestD","Output":"panic: lost\n"}
{"Action":"fail","Package":"q","Elapsed":0.2}
`, []string{"UNFINISHED  q TestD\npanic: lost\n", "1 passed, 1 failed, 1 skipped\n"}},
		"nothing":  {"", []string{"no test has run\n0 passed, 0 failed, 0 skipped\n"}},
		"not json": {"go: no such package\n", []string{"go: no such package\n", "no test has run"}},
	} {
		out, ok := sum(t, "", c.in)
		if ok {
			t.Errorf("%s: taken for good", name)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in:\n%s", name, w, out)
			}
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	s := newSummary(&bytes.Buffer{}, "")
	line := `{"Action":"output","Package":"p","Test":"T","Output":"` + strings.Repeat("x", 1000) + `"}`
	for range 3000 {
		s.line(line)
	}
	if n := s.kept["p T"]; n > maxKept {
		t.Errorf("%d bytes kept", n)
	}
}
