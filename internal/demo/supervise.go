package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// The timings of the supervisor.
const (
	restartAfter = 2 * time.Second  // a node that died is started again
	stopLimit    = 25 * time.Second // what a node gets to stop before it is killed
	tooSoon      = 5 * time.Second  // a node that ends within this has not come up
	maxTooSoon   = 5                // so many times in a row, and it is left alone
)

// supervisor runs the nodes of one demo.
type supervisor struct {
	l       Layout
	program string // the phxsql binary
	say     func(format string, args ...any)
	pause   time.Duration // before a node that died is started again
}

// run starts all nodes and starts again those that die, until ctx ends. It
// returns when no node is left. The lock must be held.
func (s *supervisor) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := 1; i <= s.l.Nodes; i++ {
		wg.Go(func() {
			// The parent-death signal is that of the thread which started the
			// child: it must live as long as the child may.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			s.keep(ctx, i)
		})
	}
	wg.Wait()
}

// keep runs one node again and again.
func (s *supervisor) keep(ctx context.Context, i int) {
	soon := 0
	for ctx.Err() == nil {
		start := time.Now()
		how := s.once(ctx, i)
		if ctx.Err() != nil {
			return
		}
		soon++
		if time.Since(start) > tooSoon {
			soon = 0
		}
		if soon >= maxTooSoon {
			s.say("node%d ended (%s) %d times in a row; it is left alone, see %s", i, how, soon, s.l.LogPath(i))
			return
		}
		s.say("node%d ended (%s); it is started again in %v", i, how, s.pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.pause):
		}
	}
}

// once runs a node until it ends or ctx does, and says how it ended.
func (s *supervisor) once(ctx context.Context, i int) string {
	log, err := os.OpenFile(s.l.LogPath(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err.Error()
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, s.program, "server", "--config", s.l.ConfigPath(i))
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: a terminal's Ctrl-C reaches the supervisor only, which
	// stops the nodes in order. And none outlives the supervisor.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := os.WriteFile(s.l.PIDPath(i), []byte(pid+"\n"), 0o600); err != nil {
		s.say("node%d: write its process id: %v", i, err)
	}
	err = cmd.Wait()
	_ = os.Remove(s.l.PIDPath(i))
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "exit 0"
	case errors.As(err, &exit):
		return exit.String()
	}
	return fmt.Sprint(err)
}
