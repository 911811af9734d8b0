package sim

import (
	"strings"
	"testing"
)

// TestScenarios plays every script: seeing and blind they must hold. That each
// can fail is shown by package mutants.
func TestScenarios(t *testing.T) {
	for _, sc := range Scenarios {
		t.Run(sc.Name, func(t *testing.T) {
			for _, blind := range []bool{false, true} {
				_, v := sc.Run(blind, true)
				if v != nil {
					t.Fatalf("%v\n%s", v, strings.Join(v.Trace[max(0, len(v.Trace)-60):], "\n"))
				}
			}
		})
	}
}
