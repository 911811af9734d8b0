package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/paxos"
)

// maxHistory is how many changes of the settings are remembered; older ones are
// forgotten, what they set is not.
const maxHistory = 100

// Settings is what all changes of the settings come to, through one place of the
// log. It is the same on every member that has followed that far, and never changed:
// a change makes another one. The zero Settings has no change.
type Settings struct {
	// At is where the newest change stands that counts; 0 if there is none.
	At paxos.Instance `json:"at"`
	// Values are the keys that have one.
	Values map[string]Setting `json:"values,omitempty"`
	// History are the newest changes that counted, oldest first.
	History []SettingsChange `json:"history,omitempty"`
}

// Setting is the value of one key.
type Setting struct {
	Value string `json:"value"`
	// Instance, Time and By are of the change that gave the key its value.
	Instance paxos.Instance `json:"instance"`
	Time     time.Time      `json:"time"`
	By       string         `json:"by,omitempty"`
}

// SettingsChange is one change that counted.
type SettingsChange struct {
	Instance paxos.Instance    `json:"instance"`
	Time     time.Time         `json:"time"`
	By       string            `json:"by,omitempty"`
	Set      map[string]string `json:"set,omitempty"`
	Unset    []string          `json:"unset,omitempty"`
}

// with returns the settings after the change at i, and the same when it does not
// count.
func (s *Settings) with(i paxos.Instance, c entry.Change) *Settings {
	if paxos.Instance(c.After) != s.At {
		return s
	}
	n := &Settings{At: i, Values: maps.Clone(s.Values)}
	if n.Values == nil {
		n.Values = map[string]Setting{}
	}
	for key, v := range c.Set {
		n.Values[key] = Setting{Value: v, Instance: i, Time: c.At, By: c.By}
	}
	for _, key := range c.Unset {
		delete(n.Values, key)
	}
	old := s.History[max(0, len(s.History)+1-maxHistory):]
	n.History = append(slices.Clone(old), SettingsChange{Instance: i, Time: c.At, By: c.By, Set: c.Set, Unset: c.Unset})
	return n
}

// Encode returns the settings as they are kept when the log is trimmed, nil when
// there are none.
func (s *Settings) Encode() []byte {
	if s == nil || s.At == 0 {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("relay: encode settings: %v", err)) // texts, numbers, and times that were read as JSON
	}
	return b
}

// DecodeSettings reads what Encode has written.
func DecodeSettings(b []byte) (*Settings, error) {
	s := &Settings{}
	if len(b) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode settings: %w", err)
	}
	if s.At == 0 || len(s.History) > maxHistory {
		return nil, errors.New("decode settings: they have no place in the log, or too long a history")
	}
	return s, nil
}

// changeSettings takes in a change at i; mu is held.
func (j *Journal) changeSettings(i paxos.Instance, c entry.Change) {
	now := j.settings.with(i, c)
	if now == j.settings {
		j.counts.Void++
		j.logger.Warn("settings_void", "instance", i, "after", c.After, "newest", uint64(j.settings.At))
		return
	}
	j.counts.Settings++
	j.setSettings(now)
	j.logger.Info("settings_changed", "instance", i, "by", c.By)
}

// setSettings makes settings the present ones and tells those who wait; mu is held
// or nobody else knows the journal yet.
func (j *Journal) setSettings(s *Settings) {
	if s == nil {
		s = &Settings{}
	}
	j.settings = s
	if j.resettled != nil {
		close(j.resettled)
		j.resettled = nil
	}
}

// Settings returns the settings that hold now, and a channel that is closed when
// others do.
func (j *Journal) Settings() (*Settings, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.resettled == nil {
		j.resettled = make(chan struct{})
	}
	return j.settings, j.resettled
}
