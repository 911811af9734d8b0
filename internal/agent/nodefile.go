package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// nodeFile marks a data directory as that of one node, so that a copied
// configuration does not make two nodes of one.
type nodeFile struct {
	Format int          `json:"format"` // 1
	Node   paxos.NodeID `json:"node"`
}

const nodeFileName = "node.json"

// claimDir makes the data directory and marks it as this node's. One of another
// node is refused, and so is a folder with things in it that are not ours.
func claimDir(dir string, node paxos.NodeID) error {
	path := filepath.Join(dir, nodeFileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return makeDir(dir, node)
	}
	if err != nil {
		return fmt.Errorf("open data directory: %w", err)
	}
	var f nodeFile
	if err := json.Unmarshal(b, &f); err != nil || f.Format != 1 {
		return hinted{fmt.Errorf("open data directory %s: %s is not of this program", dir, nodeFileName), "set node.data_dir to another folder"}
	}
	if f.Node != node {
		return hinted{fmt.Errorf("open data directory %s: it belongs to node %d, this is node %d", dir, f.Node, node),
			"correct node.id or node.data_dir; two nodes never share a folder"}
	}
	return nil
}

func makeDir(dir string, node paxos.NodeID) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open data directory: %w", err)
	}
	if len(entries) > 0 {
		return hinted{fmt.Errorf("open data directory %s: it is not empty and not of this program", dir), "set node.data_dir to a new folder"}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	b, err := json.Marshal(nodeFile{Format: 1, Node: node})
	if err != nil {
		return fmt.Errorf("encode %s: %w", nodeFileName, err)
	}
	if err := writeSynced(filepath.Join(dir, nodeFileName), append(b, '\n')); err != nil {
		return fmt.Errorf("mark data directory: %w", err)
	}
	return nil
}

// writeSynced writes a file that is complete or absent after a crash.
func writeSynced(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkDisk writes and syncs a small file where the log will be. A disk that
// cannot sync, or takes longer than half a lease, cannot carry a member: every
// leader would lose its lease at every commit.
func checkDisk(dir string, limit time.Duration) (took time.Duration, err error) {
	path := filepath.Join(dir, "sync.probe")
	defer os.Remove(path) //nolint:errcheck // a probe that stays is no harm
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, fmt.Errorf("check disk: %w", err)
	}
	defer f.Close() //nolint:errcheck // synced before
	best := time.Duration(1<<63 - 1)
	for range 3 {
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			return 0, fmt.Errorf("check disk: %w", err)
		}
		began := time.Now()
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, hinted{fmt.Errorf("check disk: sync %s: %w", dir, err), "put node.data_dir on a file system that can sync"}
		}
		best = min(best, time.Since(began))
	}
	if best > limit {
		return best, hinted{fmt.Errorf("check disk: a sync of %s takes %v, half a lease is %v", dir, best, limit),
			"use a faster disk for node.data_dir, or a longer consensus.lease on all members"}
	}
	return best, nil
}

// checkClock refuses a clock by which leases cannot be measured.
func checkClock() error {
	read := func() (time.Duration, error) {
		var ts unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
		return time.Duration(ts.Nano()), err
	}
	a, err := read()
	if err != nil {
		return fmt.Errorf("check clock: read CLOCK_BOOTTIME: %w", err)
	}
	began := time.Now()
	for time.Since(began) < time.Millisecond {
	}
	b, err := read()
	if err != nil {
		return fmt.Errorf("check clock: read CLOCK_BOOTTIME: %w", err)
	}
	if b <= a {
		return hinted{fmt.Errorf("check clock: CLOCK_BOOTTIME stands still at %v", b), "the machine's clock source is broken; leases cannot be measured"}
	}
	return nil
}

// clock is the clock by which leases are measured.
func (a *Agent) clock() (func() paxos.Time, error) {
	path := os.Getenv(host.EnvSkew)
	if path == "" {
		return host.Boottime, nil
	}
	a.log.Warn("the clock is wrong on purpose, for a drill", telemetry.KeyFile, path)
	return host.SkewedClock(path)
}

// hinted is an error that tells an operator what to do next.
type hinted struct {
	error
	hint string
}

// Unwrap returns the error without the hint.
func (h hinted) Unwrap() error { return h.error }

// ErrorHint returns what to do next.
func (h hinted) ErrorHint() string { return h.hint }
