package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/vfs"
)

// The rhythm of the canaries.
const (
	probeEvery  = time.Second
	commitEvery = 500 * time.Millisecond
	// commitPace is how many bytes a server that is busy with a large commit writes
	// at least within commitEvery.
	commitPace = 512 << 10
)

// canaries watch the write path: the syncs of the log, a small file beside the server's
// data that is written and synced every second, the room on both disks, and the commits
// of clients. What stands still for longer than limit makes the node unable to lead.
//
// The file is probed by a goroutine that nobody waits for: it hangs as the disk does.
type canaries struct {
	limit   time.Duration
	minFree int64
	log     watch
	data    watch
	commits atomic.Int64                    // for how long commits have stood still, in nanoseconds
	found   atomic.Pointer[cluster.Problem] // by the newest probe that came back
	room    atomic.Pointer[cluster.Problem]

	logAge, dataAge age // of the loop
}

// watch knows which of some operations are under way. It is safe for concurrent use.
type watch struct {
	mu      sync.Mutex
	last    uint64
	running map[uint64]struct{}
}

// begin notes an operation until the function that it returns is called.
func (w *watch) begin() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		w.running = map[uint64]struct{}{}
	}
	w.last++
	n := w.last
	w.running[n] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.running, n)
	}
}

// oldest is the number of the oldest operation under way; zero: there is none.
func (w *watch) oldest() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := uint64(0)
	for n := range w.running {
		if first == 0 || n < first {
			first = n
		}
	}
	return first
}

// age is for how long the oldest operation of a watch has been seen under way. Time in
// which nobody looked, because this process stood still, does not count.
type age struct {
	of   uint64
	time time.Duration
}

func (a *age) look(w *watch, passed time.Duration) time.Duration {
	n := w.oldest()
	if n == 0 || n != a.of {
		*a = age{of: n}
		return 0
	}
	a.time += passed
	return a.time
}

// judge says what stands still. Only the loop calls it, with the time since it did last.
func (c *canaries) judge(passed time.Duration) []cluster.Problem {
	var ps []cluster.Problem
	stalled := func(name string, d time.Duration, what, hint string) {
		if d > c.limit {
			ps = append(ps, cluster.Problem{Name: name, Severe: true, Reason: fmt.Sprintf("%s for %v", what, d.Truncate(time.Second)), Hint: hint})
		}
	}
	stalled("log_stalled", c.logAge.look(&c.log, passed), "the disk of the log has not answered", "look at the disk of the log: its errors, its load, its network if it has one")
	stalled("data_stalled", c.dataAge.look(&c.data, passed), "the disk of the server's data has not answered", "look at the disk of the data: its errors, its load, its network if it has one")
	stalled("commit_stalled", time.Duration(c.commits.Load()), "no commit has got into the binary log", "look at the server's processlist, its error log and its disk")
	for _, p := range []*cluster.Problem{c.found.Load(), c.room.Load()} {
		if p != nil {
			ps = append(ps, *p)
		}
	}
	return ps
}

// probe writes and syncs a small file in dir, again and again, and looks at the room
// on its disk and on that of the log.
func (c *canaries) probe(ctx context.Context, dir, log string) {
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	for {
		end := c.data.begin()
		found, room := probeFile(filepath.Join(dir, "canary")), c.lookAtRoom(dir, log)
		end()
		c.found.Store(found)
		c.room.Store(room)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// diskFullProblem is the name of a disk of the server's data that has no room at all.
const diskFullProblem = "data_disk_full"

// probeFile finds out whether a file can be written and synced.
func probeFile(path string) *cluster.Problem {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err == nil {
		_, err = f.Write(make([]byte, 4096))
		if err == nil {
			err = unix.Fdatasync(int(f.Fd()))
		}
		err = errors.Join(err, f.Close())
	}
	switch {
	case err == nil || errors.Is(err, os.ErrNotExist): // the folder is not made yet
		return nil
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return &cluster.Problem{
			Name: diskFullProblem, Severe: true, Reason: "the disk of the server's data is full",
			Hint: "free space there; the server goes on by itself, or is started anew",
		}
	}
	return &cluster.Problem{
		Name: "data_disk_fails", Severe: true, Reason: "the disk of the server's data fails: " + err.Error(),
		Hint: "look at the disk; replace the node if it is broken",
	}
}

// lookAtRoom finds out whether a disk is almost full. One that was stays so until a
// quarter more is free.
func (c *canaries) lookAtRoom(dirs ...string) *cluster.Problem {
	need := c.minFree
	if c.room.Load() != nil {
		need += need / 4
	}
	for _, dir := range dirs {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 {
			continue
		}
		if free := int64(st.Bavail) * st.Bsize; free < need {
			return &cluster.Problem{
				Name: "disk_low", Wary: true, Yield: true,
				Reason: fmt.Sprintf("the disk of %s has only %v left", dir, config.Size(max(0, free>>20<<20))),
				Hint:   fmt.Sprintf("free space there, at least %v; a master gives way to a member that has room", config.Size(need)),
			}
		}
	}
	return nil
}

// watchCommits finds commits that stand still inside of the server: sessions wait in
// their commit, nothing arrives at the tail, nothing is on its way to the other members,
// and the server writes nothing, as it would for a large transaction.
func (a *Agent) watchCommits(ctx context.Context) {
	t := time.NewTicker(commitEvery)
	defer t.Stop()
	var got, wrote uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s := a.loop.last.Load()
		if s == nil || s.view.Gate != cluster.GateOpen {
			a.canaries.commits.Store(0)
			continue
		}
		n, err := a.db.Committing(ctx)
		if err != nil {
			a.log.Debug("commits not counted", telemetry.KeyError, err)
			continue // a server that does not answer is noticed elsewhere
		}
		bytes, flying := a.tail.progress()
		written := writtenBy(a.db.PID())
		still := n > 0 && flying == 0 && bytes == got && written-wrote < commitPace
		got, wrote = bytes, written
		if !still {
			a.canaries.commits.Store(0)
			continue
		}
		a.canaries.commits.Add(int64(commitEvery))
	}
}

// progress is how much the newest tail has received, and how many of its values are on
// their way to the other members.
func (t *tailOf) progress() (bytes uint64, flying int) {
	tail := t.newest.Load()
	if tail == nil {
		return 0, 0
	}
	s := tail.Stats()
	return s.Bytes, s.InFlight
}

// wary reports that others should lead rather than this node.
func (s *snapshot) wary() bool {
	return s.unproved || slices.ContainsFunc(s.view.Health, func(p cluster.Problem) bool { return p.Wary })
}

// watchedFS lets the canaries see the operations of the log that reach the disk.
type watchedFS struct {
	vfs.FS
	w *watch
}

func (f watchedFS) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return watchedFile{file, f.w}, nil
}

func (f watchedFS) Create(name string) (vfs.File, error) { return f.wrap(f.FS.Create(name)) }
func (f watchedFS) Open(name string) (vfs.File, error)   { return f.wrap(f.FS.Open(name)) }
func (f watchedFS) OpenReadWrite(name string) (vfs.File, error) {
	return f.wrap(f.FS.OpenReadWrite(name))
}

func (f watchedFS) SyncDir(dir string) error {
	defer f.w.begin()()
	return f.FS.SyncDir(dir)
}

type watchedFile struct {
	vfs.File
	w *watch
}

func (f watchedFile) Sync() error {
	defer f.w.begin()()
	return f.File.Sync()
}

func (f watchedFile) WritePiecesAt(pieces [][]byte, off int64) (int, error) {
	defer f.w.begin()()
	return f.File.WritePiecesAt(pieces, off)
}

func (f watchedFile) WriteAt(p []byte, off int64) (int, error) {
	defer f.w.begin()()
	return f.File.WriteAt(p, off)
}
