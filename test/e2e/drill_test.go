package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/drill"
)

// drillFaults and drillLoads are what the short drill of every test run is made of: faults
// and workloads that have passed a soak of many hundred. The others are for soaks.
const (
	drillFaults = "kill-master,kill-master-agent,kill-master-mysqld,kill-follower,kill-majority,kill-all,kill-new-master,kill-while-starting," +
		"pause-master,pause-master-node,pause-follower,stutter-master,hang-master-mysqld,hang-follower-mysqld,partition,restart-master,switchover"
	drillLoads = "set,bank,lists,serializable,registers,ddl"
	drillTime  = 130 * time.Second
)

// TestDrill runs the command that breaks a cluster and judges it, for five minutes with all
// that belongs to it: once with a seed that stays and once with a new one. Disks have tests
// of their own.
func TestDrill(t *testing.T) {
	for _, d := range []struct {
		name string
		seed uint32
	}{{"the same faults each time", 4}, {"new faults", rand.Uint32()}} {
		t.Run(d.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "report")
			cmd := exec.CommandContext(limit(t, drillTime+10*time.Minute), program, "drill", "--seed", strconv.Itoa(int(d.seed)), "--for", drillTime.String(),
				"--faults-of", drillFaults, "--workloads", drillLoads, "--dir", out)
			said, err := cmd.CombinedOutput()
			t.Logf("%s", said)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAStageIsDrilled runs the drill of a cluster that runs already, by commands.
func TestAStageIsDrilled(t *testing.T) {
	onlyLong(t)
	c := start(t, drill.Options{})
	dir := t.TempDir()
	text := "user = \"" + c.User + "\"\npassword_file = \"word\"\n"
	files := map[string]string{"word": c.Password + "\n"}
	for _, n := range c.Nodes {
		text += fmt.Sprintf("[[node]]\nname = \"node%d\"\nrw = %q\nro = %q\n", n.ID, n.RW, n.RO)
		files[fmt.Sprintf("node%d.pid", n.ID)] = strconv.Itoa(n.PID())
	}
	text += fmt.Sprintf("[[fault]]\nname = \"pause\"\non = \"master\"\nbreak = \"kill -STOP $(cat %[1]s/{node}.pid)\"\nmend = \"kill -CONT $(cat %[1]s/{node}.pid)\"\n", dir)
	files["stage.toml"] = text
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		args = append([]string{"drill", "--target", filepath.Join(dir, "stage.toml"), "--dir", filepath.Join(dir, "report")}, args...)
		said, err := exec.CommandContext(limit(t, 5*time.Minute), program, args...).CombinedOutput()
		t.Logf("%s", said)
		return string(said), err
	}
	if said, err := run(); err == nil || !strings.Contains(said, "nothing was done") {
		t.Error("a cluster was to be broken without a word that it may be")
	}
	for range 2 { // the first leaves nothing behind
		if _, err := run("--faults", "2", "--break-this-cluster"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Exec(limit(t, time.Minute), "CREATE DATABASE bank"); err != nil {
		t.Fatal(err)
	}
	if said, err := run("--break-this-cluster"); err == nil || !strings.Contains(said, "schemas of names that the drill uses: bank") {
		t.Error("a cluster with schemas of the drill's names was not refused")
	}
}
