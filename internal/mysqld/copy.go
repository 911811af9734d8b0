package mysqld

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"
)

// A copy of another server's data is fetched beside the own data, by MySQL's CLONE
// with a data directory, while the own server goes on. When it is complete it takes
// the place of the own data, which are moved aside:
//
//	data.copy without marker   unfinished: removed at the next start
//	data.copy with marker      complete
//	data.old                   what was there before; removed by Prove
//	data.refused               a copy that was not good, while there is room for the next
//	data.drop                  what is being removed: no crash leaves half of another one
//
// A crash between the two renames leaves no data directory; Open ends it.

// CopyUser is the account that another server copies the data with. It can do nothing
// else, and its password is handed out for each copy.
const CopyUser = "phxsql_copy"

// copySecret is the password of CopyUser, made from that of the agent.
func copySecret(agent string) string {
	sum := sha256.Sum256([]byte("copy " + agent))
	return hex.EncodeToString(sum[:secretSize])
}

// copyReserve is what must stay free on the disk besides the copy.
const copyReserve = 128 << 20

// Donor is the server that a copy comes from.
type Donor struct {
	Host     string
	Port     int
	Password string // of CopyUser
	Bytes    int64  // size of its data
}

// CopyPassword is what another server needs to copy this one.
func (s *Server) CopyPassword() string { return copySecret(s.password()) }

// copyPatience is for how many minutes a donor keeps what a copy needs to go on after
// its connection was cut.
const copyPatience = 2

// PrepareToGive gets the server ready for a connection that its data are copied over. It
// logs in as CopyUser once: the server then knows the password by a hash in memory, and
// takes it over a connection that it cannot ask for the password itself.
func (s *Server) PrepareToGive(ctx context.Context) error {
	err := s.exec(ctx, "let a copy survive a cut", "SET GLOBAL clone_donor_timeout_after_network_failure = "+strconv.Itoa(copyPatience))
	if err != nil {
		return err
	}
	c := mysql.NewConfig()
	c.User, c.Passwd = CopyUser, s.CopyPassword()
	c.Net, c.Addr = "unix", s.Socket()
	c.Timeout = dialTimeout
	c.Logger = noLog{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return fmt.Errorf("log in as %s: %w", CopyUser, err)
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return fmt.Errorf("log in as %s: %w", CopyUser, err)
	}
	return conn.Close()
}

// DataSize is the size of the data directory in bytes, without the binary logs.
func (s *Server) DataSize() (int64, error) { return dirSize(s.cfg.path(dataName)) }

// CopySize is how much of a copy is there.
func (s *Server) CopySize() int64 {
	n, _ := dirSize(s.cfg.path(dataCopyName)) // what cannot be read is not there yet
	return n
}

func dirSize(dir string) (int64, error) {
	n := int64(0)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		if match, _ := filepath.Match(binlogName+".*", d.Name()); match {
			return nil
		}
		fi, err := d.Info()
		if err == nil {
			n += fi.Size()
		}
		return ignoreMissing(err)
	})
	return n, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ErrNoRoom refuses a copy for which the disk is too small.
var ErrNoRoom = errors.New("the disk has no room for a copy of the data")

// FetchCopy copies the donor's data beside the own ones. The server runs, and goes on
// running with its own data. When it returns nil the copy is complete and durable.
func (s *Server) FetchCopy(ctx context.Context, d Donor) error {
	s.work.Lock()
	defer s.work.Unlock()
	dir := s.cfg.path(dataCopyName)
	if err := s.cfg.discard(dataCopyName); err != nil {
		return err
	}
	err := s.checkRoom(d.Bytes)
	if _, there := s.RefusedData(); there && errors.Is(err, ErrNoRoom) {
		err = errors.Join(s.cfg.discard(dataRefusedName), s.checkRoom(d.Bytes))
	}
	if err != nil {
		return err
	}
	began := time.Now()
	addr := fmt.Sprintf("%s:%d", d.Host, d.Port)
	if err = s.exec(ctx, "name the donor", "SET GLOBAL clone_valid_donor_list = ?", addr); err != nil {
		return err
	}
	if err := s.clone(ctx, d, dir); err != nil {
		_ = s.cfg.discard(dataCopyName) // the next one begins with that, too
		return err
	}
	if err := s.completeCopy(dir); err != nil {
		return err
	}
	n, _ := dirSize(dir)
	s.cfg.Logger.Info("data copied", "bytes", n, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// clone runs the statement. When the connection to the donor is cut the server tries for
// some minutes to go on from there. It ends on the server, too, when ctx ends.
func (s *Server) clone(ctx context.Context, d Donor, dir string) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("copy another server's data: %w", err)
	}
	defer conn.Close() //nolint:errcheck // back to the pool
	var id uint64
	if err := conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		return fmt.Errorf("copy another server's data: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		bound, cancel := context.WithTimeout(context.Background(), queryTimeout)
		defer cancel()
		_, _ = s.db.ExecContext(bound, "KILL ?", id) // one that has ended is as good
	})
	defer stop()
	// The agent's own traffic encrypts: this connection does not leave the machine.
	_, err = conn.ExecContext(context.WithoutCancel(ctx), fmt.Sprintf(
		"CLONE INSTANCE FROM '%s'@'%s':%d IDENTIFIED BY ? DATA DIRECTORY = ? REQUIRE NO SSL", CopyUser, d.Host, d.Port), d.Password, dir)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("copy another server's data: %w", cause)
	}
	if err != nil {
		return fmt.Errorf("copy another server's data: %w", err)
	}
	return nil
}

// checkRoom makes sure that the disk takes a copy of a size.
func (s *Server) checkRoom(bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &st); err != nil {
		return fmt.Errorf("check room on disk: %w", err)
	}
	free, need := int64(st.Bavail)*st.Bsize, bytes+bytes/10+copyReserve
	if free < need {
		return fmt.Errorf("copy %d MiB: %d MiB are free and %d MiB are needed: %w (hint: free space on the file system of %s; the old data stay until the copy is good)",
			bytes>>20, free>>20, need>>20, ErrNoRoom, s.cfg.Dir)
	}
	return nil
}

// completeCopy makes a copy durable and marks it as one of ours. The keys of the own
// TLS and RSA are taken along: clients may have them pinned.
func (s *Server) completeCopy(dir string) error {
	if err := s.cfg.takeKeys(dir); err != nil {
		return err
	}
	if err := syncTree(dir); err != nil {
		return err
	}
	return s.cfg.writeMarker(dir, true)
}

// takeKeys copies the keys of the own TLS and RSA to other data.
func (c Config) takeKeys(dir string) error {
	keys, err := filepath.Glob(filepath.Join(c.path(dataName), "*.pem"))
	if err != nil {
		return fmt.Errorf("take keys along: %w", err)
	}
	for _, k := range keys {
		b, err := os.ReadFile(k)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(k)), b, 0o600)
		}
		if err != nil {
			return fmt.Errorf("take keys along: %w", err)
		}
	}
	return nil
}

// CopyReady reports whether a complete copy waits to be adopted.
func (s *Server) CopyReady() bool { return s.cfg.copyComplete() }

func (c Config) copyComplete() bool {
	_, err := os.Stat(filepath.Join(c.path(dataCopyName), markerName))
	return err == nil
}

// AdoptCopy puts a complete copy in the place of the own data, which are moved aside;
// keep says that they are worth a look. The server must not run.
func (s *Server) AdoptCopy(ctx context.Context, keep bool) error {
	s.work.Lock()
	defer s.work.Unlock()
	if s.PID() != 0 {
		return fmt.Errorf("adopt copy: %w", ErrRunning)
	}
	if !s.cfg.copyComplete() {
		return errors.New("adopt copy: there is no complete one")
	}
	if err := s.cfg.killOrphans(ctx); err != nil {
		return fmt.Errorf("adopt copy: %w", err)
	}
	if err := s.cfg.exchange(dataCopyName, keep); err != nil {
		return fmt.Errorf("adopt copy: %w", err)
	}
	s.forgetCrashes()
	return nil
}

// discard removes a folder of data. A crash leaves it whole, or nothing under its name.
func (c Config) discard(name string) error {
	drop := c.path(dataDropName)
	err := os.RemoveAll(drop)
	if err == nil {
		err = ignoreMissing(os.Rename(c.path(name), drop))
	}
	if err == nil {
		err = os.RemoveAll(drop)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", c.path(name), err)
	}
	return nil
}

// recoverCopy ends what a crash left half done: without a data directory a complete
// copy takes its place, else the old data come back. An unfinished copy goes.
func (c Config) recoverCopy() error {
	_, err := os.Stat(c.path(dataName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open data directory: %w", err)
	}
	_, oldErr := os.Stat(c.path(dataOldName))
	switch {
	case err == nil:
		return removeCopy(c)
	case c.copyComplete():
		err = os.Rename(c.path(dataCopyName), c.path(dataName))
	case oldErr == nil:
		err = errors.Join(os.Rename(c.path(dataOldName), c.path(dataName)), removeCopy(c))
	default:
		return removeCopy(c)
	}
	if err != nil {
		return fmt.Errorf("end an interrupted copy: %w", err)
	}
	return nil
}

func removeCopy(c Config) error { return c.discard(dataCopyName) }
