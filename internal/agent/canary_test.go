package agent

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/vfs"
)

func names(ps []cluster.Problem) string {
	text := ""
	for _, p := range ps {
		text += p.Name + " "
	}
	return text
}

func TestCanariesSingWhenSomethingStandsStill(t *testing.T) {
	c := &canaries{limit: 3 * time.Second}
	const turn = 200 * time.Millisecond
	look := func(n int) (last string) {
		for range n {
			last = names(c.judge(turn))
		}
		return last
	}
	// Many operations, each of them done in time, are no stall.
	for range 40 {
		end := c.log.begin()
		if got := look(1); got != "" {
			t.Fatalf("a busy log is %s", got)
		}
		end()
	}
	end := c.log.begin()
	other := c.log.begin() // one that comes and goes does not hide it
	if got := look(16); got != "" {
		t.Errorf("before the limit: %s", got)
	}
	other()
	if got := look(1); got != "log_stalled " {
		t.Errorf("behind the limit: %q", got)
	}
	defer c.data.begin()()
	c.commits.Store(int64(4 * time.Second))
	end()
	if got := look(20); got != "data_stalled commit_stalled " {
		t.Errorf("the log is well, the data and commits are not: %q", got)
	}
	for _, p := range c.judge(0) {
		if !p.Severe || p.Hint == "" {
			t.Errorf("%s has no hint, or does not matter", p.Name)
		}
	}
}

// A process that stood still itself has not seen anything else stand still.
func TestCanariesDoNotCountTimeThatNobodySaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &canaries{limit: 3 * time.Second}
		defer c.log.begin()()
		c.judge(200 * time.Millisecond)
		time.Sleep(time.Hour)
		if got := names(c.judge(200 * time.Millisecond)); got != "" {
			t.Errorf("after an hour without a look: %s", got)
		}
	})
}

func TestCanariesProbeTheDisk(t *testing.T) {
	dir := t.TempDir()
	if p := probeFile(filepath.Join(dir, "canary")); p != nil {
		t.Errorf("a disk that is well: %+v", p)
	}
	if p := probeFile(filepath.Join(dir, "not made yet", "canary")); p != nil {
		t.Errorf("a folder that is not made yet: %+v", p)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if p := probeFile(filepath.Join(dir, "folder")); p == nil || p.Name != "data_disk_fails" || !p.Severe {
		t.Errorf("what cannot be written: %+v", p)
	}
	c := &canaries{minFree: 1}
	if p := c.lookAtRoom(dir); p != nil {
		t.Errorf("a disk with room: %+v", p)
	}
	c.minFree = 1 << 60
	if p := c.lookAtRoom(dir); p == nil || p.Severe || !p.Wary || !p.Yield {
		t.Errorf("a disk that is almost full: %+v", p)
	}
}

func TestCanariesSeeTheLog(t *testing.T) {
	var w watch
	fs := watchedFS{vfs.NewMem(), &w}
	if err := fs.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create("d/f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := fs.SyncDir("d"); err != nil {
		t.Fatal(err)
	}
	if w.last != 3 || w.oldest() != 0 {
		t.Errorf("%d operations were seen, %d is under way", w.last, w.oldest())
	}
	if _, err := fs.Open("d/none"); err == nil {
		t.Error("a file that is not there was opened")
	}
}

func TestTimeOnAProcessor(t *testing.T) {
	if n, ok := parseTicks([]byte("7 (my) sqld (x) S 1 2 3 4 5 6 7 8 9 10 21 34 0 0 20 0 1")); !ok || n != 55 {
		t.Errorf("%d, %v", n, ok)
	}
	for _, s := range []string{"", "7 (x", "7 (x) S 1 2"} {
		if _, ok := parseTicks([]byte(s)); ok {
			t.Errorf("%q was understood", s)
		}
	}
	if _, ok := ticksOf(os.Getpid()); !ok {
		t.Error("the time of this process cannot be read")
	}
	if writtenBy(-1) != 0 {
		t.Error("no process has written something")
	}
}

// A server that does nothing and does not answer is given up sooner than one that
// works on something.
func TestLoopTellsHungFromBusyServers(t *testing.T) {
	for _, c := range []struct {
		busy uint64 // ticks per turn
		want time.Duration
	}{{0, 3 * time.Second}, {5, stallLimit}} {
		used := uint64(1000)
		l := &loop{canaries: &canaries{limit: 3 * time.Second}, ticks: func() (uint64, bool) { used += c.busy; return used, true }}
		l.view.Engine.State = cluster.EngineRunning
		silent := time.Duration(0)
		for !l.hung(tickSteady) {
			if silent += tickSteady; silent > time.Minute {
				t.Fatal("never")
			}
		}
		if silent < c.want || silent > c.want+2*tickSteady {
			t.Errorf("a server with %d ticks a turn is hung after %v, not %v", c.busy, silent, c.want)
		}
	}
}

// A server that is started anew within a promotion cannot answer, and is not hung while it
// gets on; one that does nothing is.
func TestLoopLetsAServerStart(t *testing.T) {
	used, busy := uint64(1000), uint64(1)
	l := &loop{canaries: &canaries{limit: 3 * time.Second}, ticks: func() (uint64, bool) { used += busy; return used, true }}
	starting := true
	l.restarting = func() bool { return starting }
	l.view.Engine.State = cluster.EngineRunning
	for range 1000 {
		if l.hung(tickSteady) {
			t.Fatal("it starts, and is called hung")
		}
	}
	hungAfter := func() (silent time.Duration) {
		for !l.hung(tickSteady) {
			if silent += tickSteady; silent > time.Minute {
				t.Fatal("never hung")
			}
		}
		return silent
	}
	busy = 0
	if silent := hungAfter(); silent < 3*time.Second || silent > 3*time.Second+4*tickSteady {
		t.Errorf("its start stands still; it is hung after %v", silent)
	}
	l.silent, busy, starting = 0, 5, false
	if silent := hungAfter(); silent < stallLimit || silent > stallLimit+4*tickSteady {
		t.Errorf("it has started and does not answer; it is hung after %v", silent)
	}
}

// Who was ill is on probation, and says so.
func TestLoopPutsTheIllOnProbation(t *testing.T) {
	l := &loop{now: time.Now()}
	see := func(ps ...cluster.Problem) string {
		l.view.Health = ps
		l.refreshProbation()
		return names(l.view.Health)
	}
	if got := see(); got != "" {
		t.Errorf("who was never ill: %s", got)
	}
	if got := see(cluster.Problem{Name: "log_stalled", Severe: true}); got != "log_stalled " {
		t.Errorf("who is ill: %s", got)
	}
	l.now = l.now.Add(time.Second)
	if got := see(); got != "on_probation " || !l.view.Health[0].Wary || l.view.Health[0].Severe {
		t.Errorf("who was ill: %+v", l.view.Health)
	}
	l.now = l.now.Add(cluster.FirstProbation)
	if got := see(); got != "" {
		t.Errorf("after the probation: %s", got)
	}
}
