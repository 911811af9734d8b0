package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shutdownGrace is how long a polite stop may take. A server that has commits
// waiting after all would release them some 8 s after SIGTERM.
const shutdownGrace = 4 * time.Second

var (
	// ErrDirInUse says that another supervisor has the folder.
	ErrDirInUse = errors.New("another phxsql server uses this folder (hint: end it, or choose another data directory)")
	// ErrRunning refuses what needs a stopped server.
	ErrRunning = errors.New("mysqld is running")
	// ErrNotRunning refuses what needs a running server.
	ErrNotRunning = errors.New("mysqld is not running")
)

// Server supervises the server of one folder. Its methods may be called from
// any goroutine. Initialize, Start and Shutdown exclude each other; Kill ends
// whatever is under way.
type Server struct {
	cfg  Config
	lock *os.File
	db   *sql.DB

	work sync.Mutex // held by Initialize, Start and Shutdown

	twoPasswords atomic.Bool // the server takes the old passwords as well: see Rotate

	mu      sync.Mutex // guards what follows
	secret  string     // password of the agent's account
	proc    *process   // the last one started; nil before the first
	ready   bool       // proc has answered
	crashes Crashes
	closed  bool
}

// Open takes the folder. It starts nothing, and changes nothing but the lock
// and the agent's secret.
func Open(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	cfg.Dir = dir
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if cfg.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	lock, err := takeLock(cfg.path(lockName))
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, lock: lock}
	if err := s.prepare(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) prepare() error {
	if err := s.cfg.recoverCopy(); err != nil {
		return err
	}
	err := s.cfg.checkData()
	if errors.Is(err, ErrForeignData) && s.cfg.hasSecret() {
		// The folder was ours: the data are damaged. Damaged tells, and no server
		// starts on them.
		s.cfg.Logger.Error("data directory is damaged", "error", err)
	} else if err != nil && !errors.Is(err, ErrNotInitialized) {
		return err
	}
	if s.secret, err = s.cfg.loadSecret(); err != nil {
		return err
	}
	s.db, err = openPool(s.cfg.path(socketName), s.password)
	return err
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", path, ErrDirInUse)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// Close kills a running server and gives the folder back.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	err := s.Kill()
	_ = s.db.Close() // the server is gone, and so are its connections
	return errors.Join(err, s.lock.Close())
}

// Socket is the path of the server's Unix socket.
func (s *Server) Socket() string { return s.cfg.path(socketName) }

// ErrorLog is the path of the server's error log.
func (s *Server) ErrorLog() string { return s.cfg.path(errorLogName) }

// Agent returns the agent's own account.
func (s *Server) Agent() (user, password string) { return AgentUser, s.password() }

// Initialized reports whether there is a data directory of ours.
func (s *Server) Initialized() bool { return s.cfg.checkData() == nil }

// Initialize makes the data directory; unproved says that others' rows will fill it,
// which are to be compared. One that was interrupted is made anew.
// Afterwards gtid_executed is empty. ErrInitialized and ErrForeignData are
// refusals.
func (s *Server) Initialize(ctx context.Context, unproved bool) error {
	s.work.Lock()
	defer s.work.Unlock()
	err := s.cfg.checkData()
	if err == nil {
		return fmt.Errorf("initialize: %w", ErrInitialized)
	}
	if !errors.Is(err, ErrNotInitialized) {
		return fmt.Errorf("initialize: %w", err)
	}
	if err := s.cfg.killOrphans(ctx); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	began := time.Now()
	if err := s.cfg.initialize(ctx, s.runInit, unproved); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	s.cfg.Logger.Info("data directory made", "dir", s.cfg.path(dataName), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (s *Server) runInit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	p, offset, err := s.launch(ctx, "--defaults-file="+s.cfg.path(initCnfName), "--initialize-insecure")
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.kill())
	}
	if p.err != nil {
		return fmt.Errorf("run mysqld --initialize: %s: %s", p.reason(), lastErrors(s.ErrorLog(), offset))
	}
	return nil
}

// launch starts a server process and makes it the current one. Offset is where
// its part of the error log begins.
func (s *Server) launch(ctx context.Context, args ...string) (p *process, offset int64, err error) {
	log, offset, err := s.cfg.openErrorLog()
	if err != nil {
		return nil, 0, err
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if s.closed {
		return nil, 0, os.ErrClosed
	}
	cmd := s.cfg.Install.Command(context.Background(), "mysqld", args...)
	cmd.Dir = s.cfg.Dir
	cmd.Stdout, cmd.Stderr = log, log
	if p, err = spawn(cmd); err != nil {
		return nil, 0, err
	}
	s.proc, s.ready = p, false
	return p, offset, nil
}

// Start starts the server by the restart recipe and returns when it answers. It
// kills a server that an earlier life left behind. A *CrashLoopError refuses a
// start that comes too soon after a series of crashes. When ctx ends first, the
// server is killed.
func (s *Server) Start(ctx context.Context) error {
	s.work.Lock()
	defer s.work.Unlock()
	if err := s.checkStart(); err != nil {
		return err
	}
	if err := s.beforeStart(ctx); err != nil {
		return fmt.Errorf("start mysqld: %w", err)
	}
	data, version := s.cfg.path(dataName), s.cfg.Install.Version.Release()
	s.keepBinlog(data)
	if err := resetBinlog(data, version, s.cfg.ServerID, time.Now()); err != nil {
		return fmt.Errorf("start mysqld: %w", err)
	}
	return s.run(ctx)
}

// run starts a server whose files are ready; work is held. Further arguments override
// the option file.
func (s *Server) run(ctx context.Context, args ...string) error {
	if err := emptyDir(s.cfg.path(loadName)); err != nil {
		return fmt.Errorf("start mysqld: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StartTimeout)
	defer cancel()
	p, offset, err := s.launch(ctx, append([]string{"--defaults-file=" + s.cfg.path(cnfName)}, args...)...)
	if err != nil {
		return fmt.Errorf("start mysqld: %w", err)
	}
	go s.watch(p, offset)
	if err := s.waitReady(ctx, p, offset); err != nil {
		if kerr := p.kill(); kerr != nil {
			return errors.Join(err, kerr)
		}
		return err
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	s.cfg.Logger.Info("mysqld started", "pid", p.pid, "took", time.Since(p.start).Round(time.Millisecond))
	return nil
}

func (s *Server) checkStart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.running() {
		return fmt.Errorf("start mysqld: %w", ErrRunning)
	}
	if s.crashes.Wait(time.Now()) > 0 {
		return &CrashLoopError{s.crashes}
	}
	return nil
}

// beforeStart does everything that must precede a server's life, but for the binary
// log.
func (s *Server) beforeStart(ctx context.Context) error {
	if err := s.cfg.checkData(); err != nil {
		return err
	}
	if err := s.cfg.killOrphans(ctx); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.prepareFiles()
}

// settle makes durable what earlier lives of the server wrote. InnoDB syncs only what it
// wrote itself: a page that a killed server wrote is read from the system's memory, found
// to be newer than the redo log, and taken for durable, so that a power cut within the
// half minute in which the system writes it would undo what a checkpoint relies on.
func (s *Server) settle(ctx context.Context) error {
	done := make(chan error, 1) // a disk that hangs holds up a sync, but not who gives up
	go func() { done <- syncTree(s.cfg.path(dataName)) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("sync the data of an earlier life: %w", ctx.Err())
	}
}

// prepareFiles writes what a server reads besides its data.
func (s *Server) prepareFiles() error {
	if err := s.cfg.clearSocket(); err != nil {
		return err
	}
	if err := writeSecret(s.cfg.path(accountsName), accounts(s.password())); err != nil {
		return fmt.Errorf("write the account file: %w", err)
	}
	if err := os.WriteFile(s.cfg.path(cnfName), []byte(s.cfg.runOptionFile()), 0o640); err != nil {
		return fmt.Errorf("write option file: %w", err)
	}
	return nil
}

// watch notes the end of a server that nobody asked for.
func (s *Server) watch(p *process, offset int64) {
	<-p.exited
	if p.wanted.Load() {
		return
	}
	reason := p.reason() + ": " + lastErrors(s.ErrorLog(), offset)
	s.mu.Lock()
	s.crashes = s.crashes.add(p.end, p.end.Sub(p.start), reason)
	count := s.crashes.Count
	s.mu.Unlock()
	s.cfg.Logger.Error("mysqld ended by itself", "pid", p.pid, "crashes", count, "reason", reason)
}

// waitReady returns when the server answers and is what it must be.
func (s *Server) waitReady(ctx context.Context, p *process, offset int64) error {
	var last error
	ready := waitUntil(ctx, func() bool {
		if !p.running() {
			return true
		}
		last = s.verify(ctx)
		return last == nil || errors.Is(last, errWrongServer)
	})
	switch {
	case !p.running():
		return fmt.Errorf("start mysqld: it ended at once, %s: %s (hint: see %s)", p.reason(), lastErrors(s.ErrorLog(), offset), s.ErrorLog())
	case !ready && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("start mysqld: it does not answer after %v: %w (hint: see %s)", s.cfg.StartTimeout, last, s.ErrorLog())
	case !ready:
		return fmt.Errorf("start mysqld: %w", ctx.Err())
	}
	return last
}

// Running reports whether the server's process lives and has answered once.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && s.ready && s.proc.running()
}

// PID is the process id of a running server, else 0.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.running() {
		return 0
	}
	return s.proc.pid
}

// Exited returns a channel that is closed when the server that was started
// last has ended; it is closed already when none runs.
func (s *Server) Exited() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	return s.proc.exited
}

// Exit describes how a server ended.
type Exit struct {
	At     time.Time
	Wanted bool   // Kill, Shutdown or a given-up start ended it
	Reason string // such as "signal: killed"
}

// LastExit tells how the server that was started last ended; false while it
// runs, and before the first one.
func (s *Server) LastExit() (Exit, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.proc.running() {
		return Exit{}, false
	}
	return Exit{At: s.proc.end, Wanted: s.proc.wanted.Load(), Reason: s.proc.reason()}, true
}

// Crashes tells how often the server ended by itself of late.
func (s *Server) Crashes() Crashes {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashes
}

// Kill ends the server at once, with SIGKILL, and returns when it is gone. It
// is always safe: what was not confirmed is undone by the next start. A Start
// under way fails.
func (s *Server) Kill() error {
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	if p == nil || !p.running() {
		return nil
	}
	return p.kill()
}

// Shutdown ends the server politely. The caller vouches that no commit waits
// for an acknowledgement and that none can come: such a commit would be released
// as committed. A server that takes too long is killed, which loses nothing.
func (s *Server) Shutdown(ctx context.Context) error {
	s.work.Lock()
	defer s.work.Unlock()
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	if p == nil || !p.running() {
		return nil
	}
	p.wanted.Store(true)
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
	case <-time.After(shutdownGrace):
	}
	s.cfg.Logger.Warn("mysqld does not stop: killed", "pid", p.pid)
	return p.kill()
}
