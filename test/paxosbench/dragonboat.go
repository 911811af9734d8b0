package main

import (
	"context"
	"io"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/statemachine"
)

// nothing is a state machine that keeps nothing.
type nothing struct{}

func (nothing) Update(statemachine.Entry) (statemachine.Result, error) {
	return statemachine.Result{}, nil
}
func (nothing) Lookup(any) (any, error) { return nil, nil }
func (nothing) SaveSnapshot(io.Writer, statemachine.ISnapshotFileCollection, <-chan struct{}) error {
	return nil
}
func (nothing) RecoverFromSnapshot(io.Reader, []statemachine.SnapshotFile, <-chan struct{}) error {
	return nil
}
func (nothing) Close() error { return nil }

// startDragonboat runs dragonboat on tan, the faster of its two logs.
func startDragonboat(s seat) (propose, error) {
	for _, name := range []string{"raft", "rsm", "transport", "grpc", "dragonboat", "logdb", "config", "tan", "raftpb", "utils", "settings", "order"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	hc := config.NodeHostConfig{WALDir: s.dir, NodeHostDir: s.dir, RTTMillisecond: 10, RaftAddress: s.addr(s.index, 0)}
	hc.Expert = config.GetDefaultExpertConfig()
	hc.Expert.LogDBFactory = tan.Factory
	hc.Expert.LogDB = config.GetTinyMemLogDBConfig()
	nh, err := dragonboat.NewNodeHost(hc)
	if err != nil {
		return nil, err
	}
	members := map[uint64]dragonboat.Target{}
	for i := range nodes {
		members[uint64(i+1)] = s.addr(i, 0)
	}
	var sessions []*client.Session
	for g := range s.groups {
		rc := config.Config{ReplicaID: uint64(s.index + 1), ShardID: uint64(g + 1), ElectionRTT: 50, HeartbeatRTT: 10, CheckQuorum: true, PreVote: true}
		if s.index != 0 { // node 0 shall win
			rc.ElectionRTT = 300
		}
		if err := nh.StartReplica(members, false, func(uint64, uint64) statemachine.IStateMachine { return nothing{} }, rc); err != nil {
			return nil, err
		}
		sessions = append(sessions, nh.GetNoOPSession(uint64(g+1)))
	}
	if s.index != 0 {
		return nil, nil
	}
	err = poll(electionLimit, "leadership", func() bool {
		for g := range s.groups {
			if id, _, ok, err := nh.GetLeaderID(uint64(g + 1)); err != nil || !ok || id != 1 {
				return false
			}
		}
		return true
	})
	return func(g int, v []byte) error {
		ctx, cancel := context.WithTimeout(context.Background(), proposeLimit)
		defer cancel()
		_, err := nh.SyncPropose(ctx, sessions[g], v)
		return err
	}, err
}
