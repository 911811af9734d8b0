package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/phxsql/phxsql/paxos"
)

// change is a replicated value: a key gets a value, or loses it.
type change struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Delete bool   `json:"delete,omitempty"`
	// If is what the key must have for the change to be made; "" for nothing.
	If *string `json:"if,omitempty"`
}

// changed is what Apply returns to the proposer.
type changed struct {
	before string // what the key had
	done   bool   // If held
}

// store is the state machine: a map, with snapshots in a file. A snapshot is what a
// restart begins with, so the log before it may go.
type store struct {
	path string

	mu   sync.RWMutex
	data map[string]string
	at   paxos.Instance
}

// snapshot is the content of the file.
type snapshot struct {
	Applied paxos.Instance    `json:"applied"`
	Data    map[string]string `json:"data"`
}

func openStore(dir string) (*store, error) {
	s := &store{path: filepath.Join(dir, "snapshot.json"), data: map[string]string{}}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var snap snapshot
	if err == nil {
		err = json.Unmarshal(b, &snap)
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", s.path, err)
	}
	s.at = snap.Applied
	if snap.Data != nil {
		s.data = snap.Data
	}
	return s, nil
}

// Applied implements node.StateMachine.
func (s *store) Applied() paxos.Instance { return s.at }

// Apply implements node.StateMachine. It returns a changed.
func (s *store) Apply(i paxos.Instance, value []byte) any {
	var c change
	err := json.Unmarshal(value, &c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = i
	if err != nil {
		return changed{} // nobody proposes that; if somebody did, all members ignore it alike
	}
	before := s.data[c.Key]
	switch {
	case c.If != nil && *c.If != before:
		return changed{before, false}
	case c.Delete:
		delete(s.data, c.Key)
	default:
		s.data[c.Key] = c.Value
	}
	return changed{before, true}
}

// Checkpoint implements node.Checkpointer: the new snapshot is complete and on disk
// before it takes the place of the old one.
func (s *store) Checkpoint() error {
	s.mu.RLock()
	b, err := json.Marshal(snapshot{s.at, s.data})
	s.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	temp := s.path + ".tmp"
	if err := writeSynced(temp, b); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := os.Rename(temp, s.path); err != nil {
		return fmt.Errorf("replace snapshot: %w", err)
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("open directory of snapshot: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory of snapshot: %w", err)
	}
	return nil
}

func writeSynced(name string, b []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (s *store) get(key string) (string, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.data[key]
	return v, ok
}
