package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
)

// discard is a state machine that keeps nothing.
type discard struct{}

func (discard) Apply(*raft.Log) any                   { return nil }
func (d discard) Snapshot() (raft.FSMSnapshot, error) { return d, nil }
func (discard) Restore(r io.ReadCloser) error         { return r.Close() }
func (discard) Persist(s raft.SnapshotSink) error     { return s.Close() }
func (discard) Release()                              {}

// startHashi runs hashicorp/raft on raft-wal, with the log cache that its users put
// before it, and a TCP transport for each group.
func startHashi(s seat) (propose, error) {
	var groups []*raft.Raft
	for g := range s.groups {
		r, err := hashiGroup(s, g)
		if err != nil {
			return nil, err
		}
		groups = append(groups, r)
	}
	if s.index != 0 {
		return nil, nil
	}
	err := poll(electionLimit, "leadership", func() bool {
		for _, r := range groups {
			if r.State() != raft.Leader {
				return false
			}
		}
		return true
	})
	return func(g int, v []byte) error { return groups[g].Apply(v, proposeLimit).Error() }, err
}

func hashiGroup(s seat, g int) (*raft.Raft, error) {
	silent := hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	dir := filepath.Join(s.dir, fmt.Sprint(g))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	store, err := raftwal.Open(dir, raftwal.WithLogger(silent))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	cache, err := raft.NewLogCache(512, store)
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	tr, err := raft.NewTCPTransportWithLogger(s.addr(s.index, g), nil, 3, 10*time.Second, silent)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = raft.ServerID(fmt.Sprint(s.index)), silent
	c.SnapshotInterval, c.SnapshotThreshold = time.Hour, 1<<40
	if s.index != 0 { // node 0 shall win
		c.HeartbeatTimeout, c.ElectionTimeout = 6*time.Second, 6*time.Second
	}
	var members raft.Configuration
	for i := range nodes {
		members.Servers = append(members.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: raft.ServerAddress(s.addr(i, g))})
	}
	none := raft.NewDiscardSnapshotStore()
	if err := raft.BootstrapCluster(c, cache, store, none, tr, members); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	return raft.NewRaft(c, discard{}, cache, store, none, tr)
}
