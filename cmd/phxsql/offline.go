package main

import (
	"fmt"
	"path/filepath"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// dataGroup is the group of the one log that a node replicates.
const dataGroup wal.Group = 1

// offlineLog is what a first pass over the files of a log has found. It has the
// part of a log that tells what is chosen.
type offlineLog struct {
	dir    string
	states map[uint8][]byte
	// latest is the position, in the order of the records, of the one record of
	// each instance that counts.
	latest map[uint64]int
	trim   uint64 // instances below it are no longer kept
}

// State returns the latest state under a key.
func (o *offlineLog) State(_ wal.Group, key uint8) ([]byte, bool) {
	b, ok := o.states[key]
	return b, ok
}

// Bounds says that there are no entries: what is chosen does not depend on them.
func (o *offlineLog) Bounds(wal.Group) (first, last uint64) { return 0, 0 }

// Trimmed is the newest trim.
func (o *offlineLog) Trimmed(wal.Group) uint64 { return o.trim }

// Read finds nothing, as Bounds says.
func (o *offlineLog) Read(wal.Group, uint64) ([]byte, error) { return nil, wal.ErrNotFound }

// Append refuses: the log is only looked at.
func (o *offlineLog) Append(...wal.Record) (wal.LSN, error) { return 0, wal.ErrClosed }

// dumpDir calls f for the entries in the log of a data directory, in the order in
// which they were written, and for each damaged place. It changes nothing and
// takes no lock.
func dumpDir(dataDir string, from, to paxos.Instance, f func(api.LogEntry) error) error {
	o := &offlineLog{dir: filepath.Join(dataDir, "log"), states: map[uint8][]byte{}, latest: map[uint64]int{}}
	if _, err := wal.ReadIdentity(vfs.OS{}, o.dir); err != nil {
		return &hintError{err, "name the data directory of a node (node.data_dir)"}
	}
	if err := o.scan(); err != nil {
		return err
	}
	st, err := replica.Recover(o, dataGroup)
	if err != nil {
		return err
	}
	return o.print(st.Chosen, from, to, f)
}

// scan is the first pass.
func (o *offlineLog) scan() error {
	n := 0
	for raw, err := range wal.Records(vfs.OS{}, o.dir) {
		if err != nil {
			return err
		}
		n++
		r := raw.Record
		if raw.Damage != nil || r.Group != dataGroup {
			continue
		}
		switch r.Kind {
		case wal.KindEntry:
			o.latest[r.Index] = n
		case wal.KindState:
			o.states[r.Key] = r.Payload
		case wal.KindTrim:
			o.trim = max(o.trim, r.Index)
		}
	}
	return nil
}

// print is the second pass. Entries outside of the range are looked at too: they
// tell which epoch holds.
func (o *offlineLog) print(chosen, from, to paxos.Instance, f func(api.LogEntry) error) error {
	var d api.Describer
	n := 0
	for raw, err := range wal.Records(vfs.OS{}, o.dir) {
		if err != nil {
			return err
		}
		n++
		r := raw.Record
		var le api.LogEntry
		switch {
		case raw.Damage != nil:
			le = api.LogEntry{Instance: paxos.Instance(r.Index), Kind: "damaged", Detail: raw.Damage.Error()}
		case r.Group != dataGroup || r.Kind != wal.KindEntry || o.latest[r.Index] != n || r.Index < o.trim:
			continue
		default:
			le = describeRaw(&d, r, chosen)
		}
		if le.Instance < from || to != 0 && le.Instance > to {
			continue
		}
		if err := f(le); err != nil {
			return fmt.Errorf("print entry %d: %w", le.Instance, err)
		}
	}
	return nil
}

func describeRaw(d *api.Describer, r wal.Record, chosen paxos.Instance) api.LogEntry {
	e, err := paxos.DecodeEntry(r.Payload)
	if err != nil {
		return api.LogEntry{Instance: paxos.Instance(r.Index), Kind: "unreadable", Bytes: len(r.Payload), Detail: err.Error()}
	}
	if e.Instance <= chosen {
		return d.Describe(e)
	}
	// What may not be chosen must not change which epoch holds.
	var apart api.Describer
	le := apart.Describe(e)
	if le.Detail != "" {
		le.Detail += "; "
	}
	le.Detail += "accepted, not known here to be chosen"
	return le
}
