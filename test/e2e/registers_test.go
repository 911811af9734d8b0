package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// TestReadsAreLinearizable reads and writes single rows through all read-write
// ports while masters are deposed with their clients attached: an answer that
// was true under a lease that has ended must not reach anybody.
func TestReadsAreLinearizable(t *testing.T) {
	c := start(t, drill.Options{Namespaces: true})
	r, err := c.StartRegisters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	isolate, pause := drill.IsolateMaster, drill.PauseMaster
	isolate.Hold, pause.Hold = 3*time.Second, 3*time.Second
	for _, f := range []drill.Fault{isolate, pause, drill.PauseMasterBriefly, drill.KillMaster, drill.KillMasterServer, drill.Switchover, isolate} {
		if err := r.Endure(limit(t, 2*time.Minute), f); err != nil {
			t.Fatal(err)
		}
	}
	r.Stop()
	all, unknown := r.Counts()
	t.Logf("%d operations, %d of unknown outcome", all, unknown)
	if err := r.Verify(); err != nil {
		t.Error(err)
	}
	settled(t, c)
}
