package e2e

import (
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestDrill runs the command that breaks a cluster and judges it, once with a seed that
// stays and once with a new one. Disks have tests of their own.
func TestDrill(t *testing.T) {
	for _, d := range []struct {
		name string
		seed uint32
	}{{"the same faults each time", 4}, {"new faults", rand.Uint32()}} {
		t.Run(d.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "report")
			cmd := exec.CommandContext(limit(t, 5*time.Minute), program, "drill", "--seed", strconv.Itoa(int(d.seed)), "--faults", "3",
				"--faults-of", "kill,pause,hang,partition,orderly", "--dir", out)
			said, err := cmd.CombinedOutput()
			t.Logf("%s", said)
			if err != nil {
				t.Error(err)
			}
		})
	}
}
