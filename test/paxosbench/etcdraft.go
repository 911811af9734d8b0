package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// etcd-io/raft is a core without I/O. Around it stand etcd's own log and a plain
// transport: one TCP connection for each direction, messages framed by length and
// group, flushed when the queue is empty. The loop does what etcd does: the leader
// sends before it writes, followers write before they answer.

const (
	etcdQueue   = 8192 // messages that wait for one peer
	etcdDrain   = 512  // events taken in before the next Ready
	etcdKeep    = 200 << 20
	etcdBuffer  = 256 << 10
	etcdMessage = 1 << 20
)

type etcdFrame struct {
	group int
	msg   *raftpb.Message
}

type etcdProposal struct {
	value []byte
	done  chan error
}

type etcdGroup struct {
	index, groups      int
	node               *raft.RawNode
	mem                *raft.MemoryStorage
	wal                *wal.WAL
	out                []chan etcdFrame // by raft id
	in                 chan *raftpb.Message
	proposals          chan etcdProposal
	waiting            map[uint64]chan error // by the first 8 bytes of the value
	leads              bool
	elected            chan struct{}
	applied, compacted uint64
}

func startEtcd(s seat) (propose, error) {
	raft.SetLogger(&raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)})
	ln, err := net.Listen("tcp", s.addr(s.index, 0))
	if err != nil {
		return nil, err
	}
	out := make([]chan etcdFrame, nodes+1)
	for i := range out {
		out[i] = make(chan etcdFrame, etcdQueue)
	}
	var groups []*etcdGroup
	for i := range s.groups {
		g, err := newEtcdGroup(s, i, out)
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	go etcdAccept(ln, groups)
	for i := range nodes {
		if i != s.index {
			go etcdSend(s.addr(i, 0), out[i+1])
		}
	}
	for _, g := range groups {
		go g.loop()
	}
	if s.index != 0 {
		return nil, nil
	}
	for _, g := range groups {
		select {
		case <-g.elected:
		case <-time.After(electionLimit):
			return nil, fmt.Errorf("no leader of group %d within %v", g.index, electionLimit)
		}
	}
	pool := sync.Pool{New: func() any { return make(chan error, 1) }}
	return func(g int, v []byte) error {
		done := pool.Get().(chan error)
		groups[g].proposals <- etcdProposal{v, done}
		limit := time.NewTimer(proposeLimit)
		defer limit.Stop()
		select {
		case err := <-done:
			pool.Put(done)
			return err
		case <-limit.C:
			return errors.New("not committed in time")
		}
	}, nil
}

func newEtcdGroup(s seat, index int, out []chan etcdFrame) (*etcdGroup, error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	w, err := wal.Create(zap.NewNop(), filepath.Join(s.dir, fmt.Sprint(index)), nil)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	mem := raft.NewMemoryStorage()
	election := 10
	if s.index != 0 { // node 0 shall win
		election = 50
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID: uint64(s.index + 1), ElectionTick: election, HeartbeatTick: 1, Storage: mem,
		MaxSizePerMsg: etcdMessage, MaxInflightMsgs: 256, CheckQuorum: true, PreVote: true,
	})
	if err != nil {
		return nil, err
	}
	var peers []raft.Peer
	for i := range nodes {
		peers = append(peers, raft.Peer{ID: uint64(i + 1)})
	}
	if err := node.Bootstrap(peers); err != nil {
		return nil, err
	}
	return &etcdGroup{
		index: index, groups: s.groups, node: node, mem: mem, wal: w, out: out,
		in: make(chan *raftpb.Message, 4096), proposals: make(chan etcdProposal, 1024),
		waiting: map[uint64]chan error{}, elected: make(chan struct{}),
	}, nil
}

func (g *etcdGroup) loop() {
	tick := time.NewTicker(100 * time.Millisecond)
	for {
		select {
		case <-tick.C:
			g.node.Tick()
		case m := <-g.in:
			_ = g.node.Step(m) // what it refuses does not concern it
		case p := <-g.proposals:
			g.propose(p)
		}
		g.drain()
		for g.node.HasReady() {
			g.ready(g.node.Ready())
		}
	}
}

// drain takes in what else waits, so that one write carries it all.
func (g *etcdGroup) drain() {
	for range etcdDrain {
		select {
		case m := <-g.in:
			_ = g.node.Step(m)
		case p := <-g.proposals:
			g.propose(p)
		default:
			return
		}
	}
}

func (g *etcdGroup) propose(p etcdProposal) {
	if err := g.node.Propose(p.value); err != nil {
		p.done <- err
		return
	}
	g.waiting[binary.LittleEndian.Uint64(p.value)] = p.done
}

func (g *etcdGroup) ready(rd raft.Ready) {
	if rd.SoftState != nil {
		leads := rd.SoftState.RaftState == raft.StateLeader
		if leads && !g.leads {
			close(g.elected)
		}
		g.leads = leads
	}
	if g.leads {
		g.send(rd.Messages)
	}
	if rd.HardState != nil || len(rd.Entries) > 0 {
		hard := rd.HardState
		if hard == nil {
			hard = &raftpb.HardState{}
		}
		if err := g.wal.Save(hard, rd.Entries); err != nil {
			log.Fatalf("save: %v", err)
		}
		if rd.HardState != nil {
			_ = g.mem.SetHardState(rd.HardState)
		}
		_ = g.mem.Append(rd.Entries)
	}
	if !g.leads {
		g.send(rd.Messages)
	}
	for _, e := range rd.CommittedEntries {
		g.apply(e)
	}
	g.node.Advance(rd)
	g.compact(rd.CommittedEntries)
}

func (g *etcdGroup) send(msgs []*raftpb.Message) {
	for _, m := range msgs {
		select {
		case g.out[m.GetTo()] <- etcdFrame{g.index, m}:
		default: // full: raft sends it again
		}
	}
}

func (g *etcdGroup) apply(e *raftpb.Entry) {
	g.applied = e.GetIndex()
	d := e.GetData()
	switch {
	case e.GetType() == raftpb.EntryConfChange:
		var cc raftpb.ConfChange
		if err := proto.Unmarshal(d, &cc); err != nil {
			log.Fatalf("read change: %v", err)
		}
		g.node.ApplyConfChange(&cc)
	case len(d) >= 8:
		key := binary.LittleEndian.Uint64(d)
		if done := g.waiting[key]; done != nil {
			delete(g.waiting, key)
			done <- nil
		}
	}
}

// compact bounds what the memory storage keeps, by bytes.
func (g *etcdGroup) compact(es []*raftpb.Entry) {
	if len(es) == 0 {
		return
	}
	size := uint64(max(len(es[len(es)-1].GetData()), 1))
	keep := min(max(etcdKeep/uint64(g.groups)/size, 100), 10000)
	if g.applied > g.compacted+2*keep {
		_ = g.mem.Compact(g.applied - keep)
		g.compacted = g.applied - keep
	}
}

func etcdSend(addr string, frames chan etcdFrame) {
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		_ = etcdWrite(c, frames) // dial again
		c.Close()
	}
}

func etcdWrite(c net.Conn, frames chan etcdFrame) error {
	w := bufio.NewWriterSize(c, etcdBuffer)
	var head [8]byte
	var buf []byte
	for f := range frames {
		var err error
		if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], f.msg); err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(head[:], uint32(len(buf)))
		binary.LittleEndian.PutUint32(head[4:], uint32(f.group))
		w.Write(head[:])
		w.Write(buf) // errors stay in the writer
		if len(frames) == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func etcdAccept(ln net.Listener, groups []*etcdGroup) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go etcdRead(c, groups)
	}
}

func etcdRead(c net.Conn, groups []*etcdGroup) {
	r := bufio.NewReaderSize(c, etcdBuffer)
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		b := make([]byte, binary.LittleEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		m := &raftpb.Message{}
		if err := proto.Unmarshal(b, m); err != nil {
			log.Fatalf("read message: %v", err)
		}
		groups[binary.LittleEndian.Uint32(head[4:])].in <- m
	}
}
