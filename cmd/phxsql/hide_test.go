package main

import (
	"slices"
	"strings"
	"testing"
)

func TestATokenIsTakenOffTheCommandLine(t *testing.T) {
	for _, c := range []struct{ args, want, token string }{
		{"phxsql join --config c --token T --seed s", "phxsql join --config c --token-file P --seed s", "T"},
		{"phxsql join --token=T", "phxsql join --token-file P", "T"},
		{"phxsql join --config c --token-file f", "", ""},
		{"phxsql join --token T --token-file f", "", ""},
		{"phxsql join --token T --token=U", "", ""},
		{"phxsql join --token", "", ""},
		{"phxsql token create", "", ""},
		{"phxsql status --token T", "", ""},
	} {
		rest, token, found := withoutToken(strings.Fields(c.args), "P")
		if found != (c.want != "") {
			t.Errorf("%s: found %v", c.args, found)
		}
		if found && (!slices.Equal(rest, strings.Fields(c.want)) || token != c.token) {
			t.Errorf("%s: %q, token %q", c.args, rest, token)
		}
	}
}
