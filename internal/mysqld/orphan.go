package mysqld

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// orphanTimeout bounds the wait for a killed process to vanish. One that hangs
// in the kernel on a dead disk may take longer; then nothing is started.
const orphanTimeout = 15 * time.Second

// ErrSocketTaken says that a process that is not ours listens on the socket.
var ErrSocketTaken = errors.New("the server's socket is taken by another process (hint: end that process, or choose another data directory)")

// orphans lists the processes that were started with one of our option files.
// The file's full path is in their command line, so that no other server can
// be taken for one. The pid file is not asked: it may be missing or stale.
func (c Config) orphans() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && c.isOurs(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isOurs is false for a zombie, whose command line is empty.
func (c Config) isOurs(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return false
	}
	args := strings.Split(string(b), "\x00")
	return slices.Contains(args, "--defaults-file="+c.path(cnfName)) ||
		slices.Contains(args, "--defaults-file="+c.path(initCnfName))
}

// killOrphans ends what an earlier supervisor left behind. The lock on the
// folder says that no other supervisor is alive.
func (c Config) killOrphans(ctx context.Context) error {
	pids, err := c.orphans()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		c.Logger.Warn("mysqld of an earlier life killed", "pid", pid)
		if err := c.killOrphan(ctx, pid); err != nil {
			return fmt.Errorf("kill mysqld of an earlier life, pid %d: %w (hint: end it by hand)", pid, err)
		}
	}
	return nil
}

// killOrphan returns when the process has closed its files. A descriptor of the
// process keeps its number from meaning another one, and tells the very end:
// the command line vanishes earlier, with the socket still open.
func (c Config) killOrphan(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	if !c.isOurs(pid) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send signal: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, orphanTimeout)
	defer cancel()
	if !waitUntil(ctx, func() bool { return hasEnded(fd) }) {
		return fmt.Errorf("wait for its end: %w", ctx.Err())
	}
	return nil
}

// hasEnded asks a process descriptor, which is readable from the end on.
func hasEnded(pidfd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}

// clearSocket removes what dead servers left, after it made sure that nobody
// listens. The lock file is removed because the pid in it may be in use again.
func (c Config) clearSocket() error {
	path := c.path(socketName)
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("use socket %s: %w", path, ErrSocketTaken)
	}
	for _, p := range []string{path, path + ".lock", c.path(pidName)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a stale file: %w", err)
		}
	}
	return nil
}

// waitUntil polls a condition, ever more slowly, until it holds or ctx ends.
func waitUntil(ctx context.Context, cond func() bool) bool {
	pause := 2 * time.Millisecond
	for !cond() {
		select {
		case <-ctx.Done():
			return cond()
		case <-time.After(pause):
			pause = min(2*pause, 100*time.Millisecond)
		}
	}
	return true
}
