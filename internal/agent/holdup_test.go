package agent

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
)

func TestHoldupsAreLookedForWhenNothingIsExecuted(t *testing.T) {
	set := func(text string) *gtid.Set {
		s, err := gtid.ParseSet(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const server = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	one, two := server+":1", server+":1-2"
	var h holdup
	begin := time.Unix(1000, 0)
	for _, c := range []struct {
		after    time.Duration
		executed string
		want     bool
	}{
		{0, one, false},
		{holdupLimit - 1, one, false},
		{holdupLimit, one, true},
		{holdupLimit + holdupLook - 1, one, false},
		{holdupLimit + holdupLook, one, true},
		{holdupLimit + 2*holdupLook, two, false}, // it goes on
		{2*holdupLimit + 2*holdupLook - 1, two, false},
		{2*holdupLimit + 2*holdupLook, two, true},
	} {
		if got := h.due(set(c.executed), begin.Add(c.after)); got != c.want {
			t.Errorf("after %v: %v", c.after, got)
		}
	}
}
