package agent

import (
	"testing"
	"time"
)

func TestTokenIsUsedOnce(t *testing.T) {
	dir := t.TempDir()
	ts := newTokens(dir)
	if err := ts.add("one", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := ts.add("late", time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret string
		want   bool
	}{{"late", false}, {"other", false}, {"one", true}, {"one", false}} {
		if ok, err := newTokens(dir).use(c.secret); ok != c.want || err != nil { // as after a restart
			t.Errorf("token %q: %v, %v", c.secret, ok, err)
		}
	}
}
