package host

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// rot changes a byte of the first place where a value lies on a disk.
func rot(t *testing.T, fs vfs.FS, value []byte) {
	t.Helper()
	names, err := fs.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := fs.OpenReadWrite("/log/" + name)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, size)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, value)
		if at >= 0 {
			if _, err := f.WriteAt([]byte{b[at] ^ 1}, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if at >= 0 {
			return
		}
	}
	t.Fatalf("%q is not on the disk", value)
}

// rotting is a cluster of three with some values, whose third member is stopped.
type rotting struct {
	net   *network
	nodes []*node
	disk  *vfs.Mem // of the third member
	at    []paxos.Instance
	last  paxos.Instance // newest instance that the third member has
}

func (r *rotting) value(k int) []byte { return []byte(fmt.Sprintf("this is value %04d", k)) }

func startRotting(t *testing.T) *rotting {
	r := &rotting{}
	var disks []*vfs.Mem
	r.net, r.nodes = startThree(t, func(int) (vfs.FS, string) {
		disks = append(disks, vfs.NewMem())
		return disks[len(disks)-1], "/log"
	})
	r.disk = disks[2]
	lead := waitLeader(t, r.nodes...)
	for k := range 20 {
		r.at = append(r.at, proposeTo(t, lead, r.value(k)))
	}
	// What is chosen is noted with the next write: it goes on until that is on the disk.
	for noted := paxos.Instance(0); noted < r.at[19]; {
		r.last = proposeTo(t, lead, []byte("another"))
		if err := r.nodes[2].group.WaitChosen(t.Context(), r.last); err != nil {
			t.Fatal(err)
		}
		st, err := replica.Recover(r.nodes[2].log, 0)
		if err != nil {
			t.Fatal(err)
		}
		noted = st.Chosen
	}
	r.nodes[2].close()
	return r
}

// proposeTo has a value chosen and returns where.
func proposeTo(t *testing.T, lead *node, value []byte) paxos.Instance {
	t.Helper()
	told := make(chan paxos.Instance, 1)
	if err := lead.group.Propose(value, func(i paxos.Instance, err error) {
		if err != nil {
			t.Errorf("a value was lost: %v", err)
		}
		told <- i
	}); err != nil {
		t.Fatal(err)
	}
	return <-told
}

// start starts the third member again.
func (r *rotting) start(t *testing.T) (*node, error) {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: r.disk, Dir: "/log", SegmentSize: 16 << 20, Salvage: true})
	if err != nil {
		t.Fatal(err)
	}
	h := New(Options{Log: l, Sender: port{r.net, 3}, Logger: slog.New(slog.DiscardHandler)})
	n := &node{host: h, log: l}
	t.Cleanup(n.close)
	n.group, err = h.Start(0, paxos.Defaults(3, rand.Int64N))
	if err == nil {
		r.net.mu.Lock()
		r.net.hosts[3] = h
		r.net.mu.Unlock()
	}
	return n, err
}

func (r *rotting) readAll(t *testing.T, n *node) {
	t.Helper()
	if err := n.group.WaitChosen(t.Context(), r.at[len(r.at)-1]); err != nil {
		t.Fatal(err) // what is chosen is known again with a leader's help
	}
	for k, i := range r.at {
		e, err := n.group.Read(i)
		if err != nil || !bytes.Equal(e.Data, r.value(k)) {
			t.Fatalf("read instance %d: %v, %v", i, e, err)
		}
	}
}

func TestBitRotIsRepairedWhenItIsRead(t *testing.T) {
	r := startRotting(t)
	n, err := r.start(t)
	if err != nil {
		t.Fatal(err)
	}
	rot(t, r.disk, r.value(3))
	rot(t, r.disk, r.value(7))
	r.readAll(t, n)
	n.close()
	again, err := r.start(t) // the log has the entries anew
	if err != nil {
		t.Fatal(err)
	}
	if ds := again.log.Damages(); len(ds) != 0 {
		t.Errorf("the log is still damaged: %v", ds)
	}
	r.readAll(t, again)
}

func TestBitRotIsRepairedWhenItIsFoundAtTheStart(t *testing.T) {
	r := startRotting(t)
	rot(t, r.disk, r.value(5))
	n, err := r.start(t)
	if err != nil {
		t.Fatal(err)
	}
	if ds := n.log.Damages(); len(ds) != 1 {
		t.Fatalf("the log is not damaged as planned: %v", ds)
	}
	r.readAll(t, n)
}

// TestALostVoteIsNotRepaired: what was accepted and is not known to be chosen cannot
// be had from others; a member that has lost it must not vote on.
func TestALostVoteIsNotRepaired(t *testing.T) {
	r := startRotting(t)
	l, err := wal.Open(wal.Options{FS: r.disk, Dir: "/log", SegmentSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	vote := paxos.Entry{Instance: r.last + 2, Ballot: paxos.Ballot{Round: 9, Node: 1}, Kind: paxos.Normal, Data: []byte("a vote that counts")}
	if _, err := l.Append(wal.Record{Kind: wal.KindEntry, Index: uint64(vote.Instance), Payload: paxos.AppendEntry(nil, vote)}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rot(t, r.disk, vote.Data)
	if _, err := r.start(t); !errors.Is(err, replica.ErrDamaged) {
		t.Fatalf("a member that lost its vote starts: %v", err)
	}
}
