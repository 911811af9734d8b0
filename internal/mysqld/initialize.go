package mysqld

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// AgentUser is the account of the agent: local to each server, with all
// privileges, with a random password of its own.
const AgentUser = "phxsql_agent"

// agentHost is the only place from which the agent's account may log in. Every
// session comes through the Unix socket and counts as "localhost".
const agentHost = "localhost"

// initTimeout bounds the making of a data directory; it takes 3 s on an idle
// disk.
const initTimeout = 10 * time.Minute

var (
	// ErrForeignData refuses a data directory that this package did not make.
	ErrForeignData = errors.New("the data directory was not made by phxsql (hint: choose another data directory, or load a dump of the old data into the cluster)")
	// ErrInitialized says that there is a data directory already.
	ErrInitialized = errors.New("the data directory exists already")
	// ErrNotInitialized says that Initialize was not called yet.
	ErrNotInitialized = errors.New("there is no data directory yet")
)

// marker is the file that makes a data directory ours.
type marker struct {
	Format  int    `json:"format"` // 1
	Engine  string `json:"engine"` // release that made the directory
	Created string `json:"created"`
	// Unproved says that the data are new, in the place of others which are kept aside
	// or are lost, or on a new member, and were not compared with a good one's yet.
	Unproved bool `json:"unproved,omitempty"`
}

// checkData returns nil for a data directory of ours, ErrNotInitialized when
// there is none, and ErrForeignData for anything else.
func (c Config) checkData() error {
	data := c.path(dataName)
	b, err := os.ReadFile(filepath.Join(data, markerName))
	if err == nil {
		var m marker
		if err := json.Unmarshal(b, &m); err != nil || m.Format != 1 {
			return fmt.Errorf("open data directory %s: read %s: %w", data, markerName, ErrForeignData)
		}
		return nil
	}
	entries, derr := os.ReadDir(data)
	switch {
	case errors.Is(derr, os.ErrNotExist), derr == nil && len(entries) == 0:
		return fmt.Errorf("open data directory %s: %w", data, ErrNotInitialized)
	case derr != nil:
		return fmt.Errorf("open data directory: %w", derr)
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open data directory: %w", err)
	}
	return fmt.Errorf("open data directory %s: %w", data, ErrForeignData)
}

// initialize makes the data directory beside its final place and renames it, so
// that an interrupted initialisation leaves nothing that looks finished.
func (c Config) initialize(ctx context.Context, run func(context.Context) error, unproved bool) error {
	if err := c.makeFresh(ctx, run, unproved); err != nil {
		return err
	}
	_ = os.Remove(c.path(dataName)) // an empty one, as checkData saw
	if err := os.Rename(c.path(dataNewName), c.path(dataName)); err != nil {
		return fmt.Errorf("move the data directory into place: %w", err)
	}
	return syncNames(c.Dir)
}

// makeFresh makes new data beside those of the server.
func (c Config) makeFresh(ctx context.Context, run func(context.Context) error, unproved bool) error {
	fresh := c.path(dataNewName)
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove an unfinished data directory: %w", err)
	}
	if err := os.WriteFile(c.path(initCnfName), []byte(c.initOptionFile()), 0o640); err != nil {
		return fmt.Errorf("write option file: %w", err)
	}
	if err := run(ctx); err != nil {
		return err
	}
	if err := syncTree(fresh); err != nil {
		return err
	}
	return c.writeMarker(fresh, unproved)
}

// syncTree makes everything below dir durable, and its own name. Where the file system's
// sync is known to do that, it is enough; not every one hears of it (FUSE does not), and
// there each file is synced. Ten thousand files take seconds even if all are clean.
func syncTree(dir string) error {
	if err := syncFileSystem(dir); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && syncsWhole[int64(st.Type)] {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		return ignoreMissing(syncFile(path))
	})
	if err == nil {
		err = syncFile(filepath.Dir(dir))
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// syncsWhole are file systems whose syncfs(2) makes all files and names durable.
var syncsWhole = map[int64]bool{
	unix.EXT4_SUPER_MAGIC:  true, // and those before it
	unix.XFS_SUPER_MAGIC:   true,
	unix.BTRFS_SUPER_MAGIC: true,
}

func syncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer d.Close() //nolint:errcheck // opened for reading
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// syncNames makes the names in a folder durable, and its own.
func syncNames(dir string) error {
	if err := errors.Join(syncFile(dir), syncFile(filepath.Dir(dir))); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// syncFile makes a file durable, or the names in a folder.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// secretSize in bytes gives 32 characters, the longest password that
// replication takes.
const secretSize = 16

// loadSecret returns the password of the agent's account, made at first use.
// A lost file is no harm: the account gets the new password at the next start.
func (c Config) loadSecret() (string, error) {
	path := c.path(secretName)
	b, err := os.ReadFile(path)
	if s := strings.TrimSpace(string(b)); err == nil && len(s) == 2*secretSize && isHex(s) {
		return s, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the agent's secret: %w", err)
	}
	var raw [secretSize]byte
	_, _ = rand.Read(raw[:]) // never fails
	s := hex.EncodeToString(raw[:])
	if err := writeSecret(path, s+"\n"); err != nil {
		return "", fmt.Errorf("write the agent's secret: %w", err)
	}
	return s, nil
}

// hasSecret reports that this package has used the folder before.
func (c Config) hasSecret() bool {
	_, err := os.Stat(c.path(secretName))
	return err == nil
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}

// writeSecret replaces a file that only its owner may read.
func writeSecret(path, text string) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// accounts is what the server executes before it lets anybody in, at every
// start: it makes the agent's account, also when a user's statement dropped it
// or the data came from another node, and closes root's. Nothing of it enters
// the binary log or a GTID set, super_read_only notwithstanding.
func accounts(secret string) string {
	const (
		agent = "'" + AgentUser + "'@'" + agentHost + "'"
		donor = "'" + CopyUser + "'@'" + agentHost + "'"
	)
	by := " IDENTIFIED WITH caching_sha2_password BY '" + secret + "'" // hex: needs no quoting
	copier := " IDENTIFIED WITH caching_sha2_password BY '" + copySecret(secret) + "'"
	return strings.Join([]string{
		"SET SESSION sql_log_bin = 0;",
		"CREATE USER IF NOT EXISTS " + agent + by + ";",
		"ALTER USER " + agent + by + " REQUIRE NONE PASSWORD EXPIRE NEVER ACCOUNT UNLOCK;",
		"GRANT ALL ON *.* TO " + agent + " WITH GRANT OPTION;",
		"CREATE USER IF NOT EXISTS " + donor + copier + ";",
		"ALTER USER " + donor + copier + " REQUIRE NONE PASSWORD EXPIRE NEVER ACCOUNT UNLOCK;",
		"GRANT BACKUP_ADMIN ON *.* TO " + donor + ";",
		// What a rotation has left that was interrupted, see Rotate.
		"ALTER USER " + agent + " DISCARD OLD PASSWORD;",
		"ALTER USER " + donor + " DISCARD OLD PASSWORD;",
		"ALTER USER IF EXISTS 'root'@'localhost' ACCOUNT LOCK;",
		"",
	}, "\n")
}
