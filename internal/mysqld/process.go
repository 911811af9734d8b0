package mysqld

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one life of a server.
type process struct {
	pid    int
	start  time.Time
	wanted atomic.Bool   // this package asked for the end
	exited chan struct{} // closed when the process is gone and reaped
	err    error         // what Wait said; valid after exited
	end    time.Time     // valid after exited
}

// spawn starts cmd so that the kernel kills it when this process dies. The
// death signal is bound to the thread that forked, not to the process: a
// goroutine keeps that thread to itself until the child is gone. The child has
// a process group of its own, so that a Ctrl-C at the supervisor's terminal
// does not reach it: SIGINT would release commits that wait.
func spawn(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{start: time.Now(), exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		p.end = time.Now()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// signal sends sig unless the process has been reaped.
func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	err := syscall.Kill(p.pid, sig)
	if err == nil || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return fmt.Errorf("send %v to mysqld, pid %d: %w", sig, p.pid, err)
}

// kill ends the process at once and waits until it is reaped.
func (p *process) kill() error {
	p.wanted.Store(true)
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(orphanTimeout):
		return fmt.Errorf("kill mysqld: pid %d does not end (hint: see whether its disk hangs)", p.pid)
	}
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// reason describes an end that has happened.
func (p *process) reason() string {
	if p.err == nil {
		return "exit status 0"
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		return exit.String() // "signal: killed", "exit status 1"
	}
	return p.err.Error()
}

// openErrorLog opens the file that takes what the server prints before it opens
// its own log, which is the same file. A large one is moved aside.
func (c Config) openErrorLog() (f *os.File, size int64, err error) {
	path := c.path(errorLogName)
	if st, err := os.Stat(path); err == nil && st.Size() > maxErrorLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, fmt.Errorf("rotate the server's error log: %w", err)
		}
	}
	f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, 0, fmt.Errorf("open the server's error log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("open the server's error log: %w", err)
	}
	return f, st.Size(), nil
}
