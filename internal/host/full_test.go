package host

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// TestAFullDiskRefusesProposalsAndRecovers fills the disk of the leader: proposals are
// refused by name, what is chosen can be read, and with room all goes on.
func TestAFullDiskRefusesProposalsAndRecovers(t *testing.T) {
	disks := map[int]*vfs.Mem{}
	net := newNetwork(steady)
	_, nodes := startOn(t, net, func(id int) (vfs.FS, string) {
		disks[id] = vfs.NewMem()
		return disks[id], "/log"
	})
	lead := waitLeader(t, nodes...)
	var disk *vfs.Mem
	for k, n := range nodes {
		if n == lead {
			disk = disks[k+1]
		}
	}
	disk.SetFreeSpace(1000)
	told := make(chan error, 1000)
	open, given := 0, 0
	give := func() error {
		err := lead.group.ProposeHere(make([]byte, 1<<20), func(_ paxos.Instance, err error) { told <- err })
		if err == nil {
			open, given = open+1, given+1
		}
		return err
	}
	deadline := time.After(90 * time.Second)
	for refused := false; !refused; {
		switch err := give(); {
		case errors.Is(err, ErrDiskFull):
			refused = true
		case err != nil:
			t.Fatal(err)
		case given > 100:
			t.Fatal("100 MiB fit into a full disk")
		}
		for open >= 4 && !lead.host.DiskFull() { // a few are enough, and a slow machine has time
			select {
			case err := <-told:
				if err != nil {
					t.Fatal(err)
				}
				open--
			case <-time.After(5 * time.Millisecond): // to look at the disk again
			case <-deadline:
				t.Fatal("the disk is neither full nor not")
			}
		}
	}
	if _, err := lead.group.Read(1); err != nil {
		t.Errorf("read on a full disk: %v", err)
	}
	disk.SetFreeSpace(-1)
	for ; open > 0; open-- {
		select {
		case err := <-told:
			if err != nil && lead.group.Leader().Leader == 0 {
				t.Fatal(err)
			}
		case <-deadline:
			t.Fatal("proposals from before are not answered")
		}
	}
	for lead.host.DiskFull() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatal("the log does not notice the room")
		}
	}
	next := waitLeader(t, nodes...)
	if propose(t, next, 0, 10) != 10 {
		t.Error("proposals are not chosen after the disk has room again")
	}
}

// slowLog is a log whose syncs wait for a verdict once it is armed.
type slowLog struct {
	*wal.Log
	armed   atomic.Bool
	verdict chan error
}

func (l *slowLog) Sync() (wal.LSN, error) {
	if l.armed.Load() {
		if err := <-l.verdict; err != nil {
			return l.Durable(), err
		}
	}
	return l.Log.Sync()
}

// TestAProposerInAFullQueueHearsOfAFullDisk: the disk may be found full after the
// proposer began to wait for the queue, which then does not shrink any more.
func TestAProposerInAFullQueueHearsOfAFullDisk(t *testing.T) {
	slow := &slowLog{verdict: make(chan error)}
	h, list := alone(t, 1, 0, func(l *wal.Log) Log { slow.Log = l; return slow })
	g := list[0].group
	slow.armed.Store(true)
	value := make([]byte, 1<<20)
	refused := make(chan error, 1)
	go func() {
		for {
			if err := g.ProposeHere(value, func(paxos.Instance, error) {}); err != nil {
				refused <- err
				return
			}
		}
	}()
	queued := func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.queue.bytes >= maxQueued
	}
	for deadline := time.Now().Add(90 * time.Second); !queued(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the queue does not fill")
		}
	}
	slow.verdict <- wal.ErrNoSpace
	if err := <-refused; !errors.Is(err, ErrDiskFull) {
		t.Fatalf("the proposer who waited got %v", err)
	}
	close(slow.verdict) // the sync is tried again, and succeeds
	for deadline := time.Now().Add(90 * time.Second); h.DiskFull(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the log does not notice the room")
		}
	}
	if propose(t, list[0], 0, 10) != 10 {
		t.Error("proposals are not chosen after the disk has room again")
	}
}
