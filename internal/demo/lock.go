package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const lockName = "lock"

// lock is held by the process that runs the nodes. The kernel lets go of it when
// the process ends, however it ends.
type lock struct{ f *os.File }

// takeLock makes the folder if need be, and writes this process's id into the lock.
func (l Layout) takeLock() (*lock, error) {
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the demo: %w", err)
	}
	f, err := os.OpenFile(l.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of the demo: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &Error{fmt.Sprintf("the demo in %s is running already (pid %d)", l.Dir, l.runner()),
				"stop it with 'phxsql demo stop --dir " + l.Dir + "', or use another --dir and --base-port"}
		}
		return nil, fmt.Errorf("lock demo: %w", err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write lock of the demo: %w", err)
	}
	return &lock{f}, nil
}

func (k *lock) release() { _ = k.f.Close() }

// runner is the process that holds or held the lock; 0 if there was none.
func (l Layout) runner() int {
	b, err := os.ReadFile(l.path(lockName))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// Running returns the process that runs the demo; ok is false if none does.
func (l Layout) Running() (pid int, ok bool, err error) {
	f, err := os.Open(l.path(lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("open lock of the demo: %w", err)
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case err == nil:
		return 0, false, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return l.runner(), true, nil
	default:
		return 0, false, fmt.Errorf("look at lock of the demo: %w", err)
	}
}

// Stop ends a demo that runs and returns when all of its nodes have ended. It
// reports whether there was one.
func (l Layout) Stop(ctx context.Context) (bool, error) {
	pid, running, err := l.Running()
	if err != nil || !running {
		return false, err
	}
	if pid <= 1 {
		return true, &Error{"the demo is just starting", "try again in a moment"}
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return true, fmt.Errorf("stop demo: signal process %d: %w", pid, err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, running, err = l.Running(); err != nil || !running {
			return true, err
		}
		select {
		case <-ctx.Done():
			return true, fmt.Errorf("stop demo: process %d has not ended: %w", pid, ctx.Err())
		case <-tick.C:
		}
	}
}

// Clean removes a demo that does not run, with all of its data.
func Clean(dir string) error {
	l, err := Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &Error{"no demo is in " + dir, "name its folder with --dir"}
	}
	if err != nil {
		return err
	}
	pid, running, err := l.Running()
	if err != nil {
		return err
	}
	if running {
		return &Error{fmt.Sprintf("the demo in %s is running (pid %d)", dir, pid), "stop it first: phxsql demo stop --dir " + dir}
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		return fmt.Errorf("remove demo: %w", err)
	}
	return nil
}
