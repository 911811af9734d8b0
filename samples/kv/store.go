package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
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

// maxSnapshot limits what is read of another node's snapshot.
const maxSnapshot = 1 << 30

// store is the state machine: a map, with snapshots in a file. A snapshot is what a
// restart begins with, so the log before it may go. It is also what a node fetches from
// another, over HTTP, when the log that it lacks is gone everywhere.
type store struct {
	path string
	url  string // where other nodes find the file

	mu       sync.RWMutex
	data     map[string]string
	at       paxos.Instance
	saved    paxos.Instance // in the file
	restored int            // from others
}

// snapshot is the content of the file.
type snapshot struct {
	Applied paxos.Instance    `json:"applied"`
	Data    map[string]string `json:"data"`
}

func openStore(dir, url string) (*store, error) {
	s := &store{path: filepath.Join(dir, "snapshot.json"), url: url, data: map[string]string{}}
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
	s.take(snap)
	return s, nil
}

// take makes a snapshot that is on disk the state.
func (s *store) take(snap snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.saved, s.data = snap.Applied, snap.Applied, snap.Data
	if s.data == nil {
		s.data = map[string]string{}
	}
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

// Checkpoint implements node.Checkpointer.
func (s *store) Checkpoint() error {
	s.mu.RLock()
	at := s.at
	b, err := json.Marshal(snapshot{at, s.data})
	s.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if err := s.replace(b); err != nil {
		return err
	}
	s.mu.Lock()
	s.saved = at
	s.mu.Unlock()
	return nil
}

// Snapshot implements node.Snapshotter: the newest checkpoint's file will do.
func (s *store) Snapshot() (paxos.Instance, []byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.saved, []byte(s.url), nil
}

// Restore implements node.Snapshotter: it fetches the file of another node, which may
// have been replaced by a newer one meanwhile.
func (s *store) Restore(ctx context.Context, through paxos.Instance, reference []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, string(reference), nil)
	if err != nil {
		return fmt.Errorf("fetch snapshot: %w", err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("fetch snapshot: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxSnapshot))
	if err != nil {
		return fmt.Errorf("fetch snapshot: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch snapshot from %s: %s", reference, resp.Status)
	}
	var snap snapshot
	if err := json.Unmarshal(b, &snap); err != nil {
		return fmt.Errorf("read snapshot from %s: %w", reference, err)
	}
	if snap.Applied != through {
		return fmt.Errorf("the snapshot at %s goes through %d, not %d", reference, snap.Applied, through)
	}
	if err := s.replace(b); err != nil {
		return err
	}
	s.take(snap)
	s.mu.Lock()
	s.restored++
	s.mu.Unlock()
	return nil
}

// replace puts a new snapshot in the place of the old one: it is complete and on disk
// before.
func (s *store) replace(b []byte) error {
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

// restores is how many snapshots of others the store has taken over.
func (s *store) restores() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.restored
}
