package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/replica"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/wal"
)

// baseFile is what the journal begins from when the beginning of the log is gone. It
// is written before the log is trimmed to it.
type baseFile struct {
	Format   int             `json:"format"` // 1
	Log      string          `json:"log"`    // identity of the log that it belongs to
	Next     paxos.Instance  `json:"next"`
	Executed string          `json:"executed"`
	Epoch    baseEpoch       `json:"epoch"`
	Members  json.RawMessage `json:"members,omitempty"`
	Settings json.RawMessage `json:"settings,omitempty"` // see relay.Settings
}

type baseEpoch struct {
	Number     uint64         `json:"number"`
	Node       uint64         `json:"node"`
	ServerUUID string         `json:"server_uuid"`
	Instance   paxos.Instance `json:"instance"`
}

const baseFileName = "journal.json"

// maxBaseFile bounds what is read: a set of a million intervals fits.
const maxBaseFile = 64 << 20

func toBaseFile(b relay.Base, log string) baseFile {
	return baseFile{
		Format: 1, Log: log, Next: b.Next, Executed: b.Executed.String(), Members: b.Members,
		Epoch:    baseEpoch{b.Epoch.Number, b.Epoch.Node, b.Epoch.ServerUUID.String(), b.Epoch.Instance},
		Settings: b.Settings.Encode(),
	}
}

func (f *baseFile) base() (relay.Base, error) {
	if f.Format != 1 {
		return relay.Base{}, fmt.Errorf("read %s: format %d (was it written by a newer version of this program?)", baseFileName, f.Format)
	}
	set, err := gtid.ParseSet(f.Executed)
	if err != nil {
		return relay.Base{}, fmt.Errorf("read %s: %w", baseFileName, err)
	}
	uuid, err := gtid.ParseUUID(f.Epoch.ServerUUID)
	if err != nil {
		return relay.Base{}, fmt.Errorf("read %s: %w", baseFileName, err)
	}
	settings, err := relay.DecodeSettings(f.Settings)
	if err != nil {
		return relay.Base{}, fmt.Errorf("read %s: %w", baseFileName, err)
	}
	return relay.Base{
		Next: f.Next, Executed: set, Members: f.Members, Settings: settings,
		Epoch: relay.Epoch{Number: f.Epoch.Number, Node: f.Epoch.Node, ServerUUID: uuid, Instance: f.Epoch.Instance},
	}, nil
}

// writeBase makes a base durable.
func (a *Agent) writeBase(b relay.Base) error {
	text, err := json.Marshal(toBaseFile(b, a.wal.Identity()))
	if err != nil {
		return fmt.Errorf("encode %s: %w", baseFileName, err)
	}
	if err := writeSynced(filepath.Join(a.cfg.Node.DataDir, baseFileName), append(text, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", baseFileName, err)
	}
	return nil
}

// readBase returns the base of the log, the zero one for a log that is whole.
func (a *Agent) readBase() (relay.Base, error) {
	first, _ := a.wal.Bounds(wal.Group(dataGroup))
	path := filepath.Join(a.cfg.Node.DataDir, baseFileName)
	lost := func(err error) error {
		if first <= 1 {
			return nil
		}
		return hinted{fmt.Errorf("the log begins at instance %d and %s does not tell what was before: %w", first, baseFileName, err),
			"replace this node: 'phxsql join --replace' on a new one"}
	}
	fi, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return relay.Base{}, lost(err)
	}
	if err == nil && fi.Size() > maxBaseFile {
		err = fmt.Errorf("it has %d bytes", fi.Size())
	}
	if err != nil {
		return relay.Base{}, fmt.Errorf("read %s: %w", baseFileName, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return relay.Base{}, fmt.Errorf("read %s: %w", baseFileName, err)
	}
	var f baseFile
	if err := json.Unmarshal(text, &f); err != nil {
		return relay.Base{}, lost(err)
	}
	if f.Log != a.wal.Identity() {
		return relay.Base{}, lost(fmt.Errorf("it is that of log %s, this is %s", f.Log, a.wal.Identity()))
	}
	b, err := f.base()
	if err == nil && uint64(b.Next) < first {
		err = lost(fmt.Errorf("it ends before instance %d", b.Next))
	}
	return b, err
}

// recoverBase reads the base before the group starts. One that lies beyond the log is
// that of a snapshot whose installation was interrupted: it is completed.
func (a *Agent) recoverBase() error {
	b, err := a.readBase()
	if err != nil {
		return err
	}
	a.base = b
	if b.Next <= 1 {
		return nil
	}
	st, err := replica.Recover(a.wal, wal.Group(dataGroup))
	if err != nil {
		return err
	}
	if b.Next-1 <= st.Chosen {
		return nil
	}
	ms, err := paxos.DecodeMembers(b.Members)
	if err != nil {
		return fmt.Errorf("read %s: %w", baseFileName, err)
	}
	if err := replica.Install(a.wal, wal.Group(dataGroup), b.Next-1, ms); err != nil {
		return err
	}
	_, err = a.wal.Sync()
	return err
}
