package e2e

import (
	"context"
	"testing"

	"github.com/phxsql/phxsql/internal/drill"
)

// endure breaks a cluster under load again and again, and judges it after each
// kind of fault.
func endure(t *testing.T, c *drill.Cluster, f drill.Fault, times int) {
	t.Helper()
	w := load(t, c)
	var rs []drill.Result
	for range times {
		r, err := w.Endure(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	t.Logf("\n%s", drill.Summary(rs))
	for e, n := range w.Errors() {
		t.Logf("clients saw %d times: %s", n, e)
	}
	judge(t, c, w)
}

func TestNothingAcknowledgedIsLost(t *testing.T) {
	c := start(t, drill.Options{})
	for _, k := range []struct {
		fault drill.Fault
		times int
	}{
		{drill.KillMaster, 5},
		{drill.KillMasterServer, 3},
		{drill.KillMasterAgent, 1},
		{drill.PauseMaster, 1},
		{drill.PauseFollower, 1},
		{drill.KillAll, 1},
		{drill.Switchover, 10},
	} {
		t.Run(k.fault.Name, func(t *testing.T) { endure(t, c, k.fault, k.times) })
		if t.Failed() {
			return // what follows would only fail on what is broken already
		}
	}
}

func TestAnIsolatedMasterServesNobodyAndLosesNothing(t *testing.T) {
	c := start(t, drill.Options{Namespaces: true})
	endure(t, c, drill.IsolateMaster, 2)
}
