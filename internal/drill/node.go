package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/internal/netlab"
	"github.com/phxsql/phxsql/internal/powerloss"
)

// stopLimit bounds an orderly stop of a node.
const stopLimit = 40 * time.Second

// Node is one node of a cluster: an agent and its server.
type Node struct {
	ID                  int
	RW, RO, Peer, Admin string
	Witness             bool // it has no server; set by who makes it one

	cluster *Cluster
	config  string
	dir     string
	disk    *powerloss.Disk // of dir; nil: that of the machine
	client  *api.Client
	cmd     *exec.Cmd
	exited  chan struct{}
	paused  bool
	hung    bool      // its server is stopped where it is
	skew    host.Skew // of its clock
	bare    bool      // its data were removed, and the cluster was not well since
	log     *os.File
	pipe    *logPipe // before log; nil: none
}

// Start starts the node's agent.
func (n *Node) Start() error { return n.run("server", "--config", n.config) }

// Join starts a node that Add has made, by the command with which a user brings a new
// machine into a cluster. It returns at once.
func (n *Node) Join(token string, args ...string) error {
	path := n.cluster.path(fmt.Sprintf("node%d.token", n.ID))
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	args = append([]string{"join", "--config", n.config, "--token-file", path}, args...)
	for _, o := range n.cluster.Nodes {
		if o != n && o.Running() {
			args = append(args, "--seed", o.Admin)
		}
	}
	return n.run(args...)
}

func (n *Node) run(args ...string) error {
	if n.Running() {
		return fmt.Errorf("start node %d: it runs", n.ID)
	}
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start node %d: %w", n.ID, err)
	}
	cmd := exec.Command(n.cluster.opt.Program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	var pipe *logPipe
	if n.cluster.opt.LogPipes {
		if pipe, err = newLogPipe(log); err != nil {
			discardLog(log)
			return fmt.Errorf("start node %d: %w", n.ID, err)
		}
		cmd.Stdout, cmd.Stderr = pipe.in, pipe.in
	}
	if n.cluster.opt.Clocks {
		cmd.Env = append(os.Environ(), host.EnvSkew+"="+n.skewPath())
	}
	// A node does not outlive the drill, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start := cmd.Start
	if n.cluster.net != nil {
		start = func() error { return n.cluster.net.Within(n.ID, cmd.Start) }
	}
	if err := start(); err != nil {
		pipe.close()
		discardLog(log)
		return fmt.Errorf("start node %d: %w", n.ID, err)
	}
	n.cmd, n.log, n.pipe, n.exited, n.paused = cmd, log, pipe, make(chan struct{}), false
	n.hung = false
	go func(done chan struct{}) {
		cmd.Wait()
		pipe.close()
		discardLog(log)
		close(done)
	}(n.exited)
	return nil
}

func (n *Node) logPath() string { return n.cluster.path(fmt.Sprintf("node%d.log", n.ID)) }

// Log is the path of what the node's agent says.
func (n *Node) Log() string { return n.logPath() }

// LogTail returns the end of the node's log.
func (n *Node) LogTail() string {
	b, err := os.ReadFile(n.logPath())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// Running reports whether the agent's process is there.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

func (n *Node) signal(s syscall.Signal) error {
	if !n.Running() {
		return fmt.Errorf("signal node %d: it does not run", n.ID)
	}
	return n.cmd.Process.Signal(s)
}

// KillAgent kills the agent; the kernel kills its server with it.
func (n *Node) KillAgent() error {
	if err := n.signal(syscall.SIGKILL); err != nil {
		return err
	}
	n.mendDisk() // nothing that waits for a disk can be killed
	<-n.exited
	return nil
}

// ServerPID is the process of the node's server.
func (n *Node) ServerPID() (int, error) {
	es, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("find server of node %d: %w", n.ID, err)
	}
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.Contains(string(line), n.dir+"/") && strings.Contains(string(line), "mysqld") {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("find server of node %d: no mysqld with a file in %s", n.ID, n.dir)
}

// KillServer kills the server only; its agent lives.
func (n *Node) KillServer() error {
	pid, err := n.ServerPID()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// KillAll kills agent and server at the same moment and waits for both.
func (n *Node) KillAll() error {
	if !n.Running() {
		return nil
	}
	pid, serverErr := n.ServerPID()
	err := n.signal(syscall.SIGKILL)
	if serverErr == nil {
		err = errors.Join(err, ignoreGone(syscall.Kill(pid, syscall.SIGKILL)))
	}
	n.mendDisk()
	<-n.exited
	return err
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// Dump ends the agent and has it write what all its goroutines are doing to its log:
// evidence for one that hangs.
func (n *Node) Dump() error {
	if err := n.Heal(); err != nil {
		return err
	}
	return n.signal(syscall.SIGQUIT)
}

// Pause stops the agent's process where it is; its server goes on.
func (n *Node) Pause() error {
	n.paused = true
	return n.signal(syscall.SIGSTOP)
}

// Resume lets a paused agent go on.
func (n *Node) Resume() error {
	n.paused = false
	return n.signal(syscall.SIGCONT)
}

// PauseServer stops the node's mysqld where it is; its agent goes on.
func (n *Node) PauseServer() error {
	n.hung = true
	return n.signalServer(syscall.SIGSTOP)
}

// ResumeServer lets a paused mysqld go on. One that was killed meanwhile is no
// error.
func (n *Node) ResumeServer() error {
	n.hung = false
	return ignoreGone(n.signalServer(syscall.SIGCONT))
}

// Heal undoes what a fault has done to the node's processes, whatever it was: it does
// what a machine's init system does, and no more.
func (n *Node) Heal() error {
	n.mendDisk()
	n.pipe.release()
	if !n.Running() {
		return n.Start()
	}
	if n.hung {
		n.hung = false
		if pid, err := n.ServerPID(); err == nil { // else it was killed meanwhile
			if err := ignoreGone(syscall.Kill(pid, syscall.SIGCONT)); err != nil {
				return fmt.Errorf("resume server of node %d: %w", n.ID, err)
			}
		}
	}
	if n.paused {
		return n.Resume()
	}
	return nil
}

func (n *Node) signalServer(s syscall.Signal) error {
	pid, err := n.ServerPID()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, s)
}

// withData are the nodes that have a server.
func (c *Cluster) withData() []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return n.Witness })
}

// Dir is the node's data directory.
func (n *Node) Dir() string { return n.dir }

// Config is the path of the node's configuration.
func (n *Node) Config() string { return n.config }

// Self is what the node says about itself.
func (n *Node) Self(ctx context.Context) (api.MemberStatus, error) { return n.self(ctx) }

// Stop asks the agent to stop, as an operator does, and waits.
func (n *Node) Stop(ctx context.Context) error {
	n.mendDisk()
	n.pipe.release()
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	select {
	case <-n.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop node %d: it is still there:\n%s", n.ID, n.LogTail())
	}
}

// Isolate cuts the node off from its peers; its clients still reach it. Only
// with Options.Namespaces.
func (n *Node) Isolate() error { return n.cluster.net.SetPeerLink(n.ID, false) }

// Cut loses what the node sends to another one, in that direction only. Only with
// Options.Namespaces.
func (n *Node) Cut(to *Node) error { return n.cluster.net.SetPath(n.ID, to.ID, false) }

// Uncut ends Cut.
func (n *Node) Uncut(to *Node) error { return n.cluster.net.SetPath(n.ID, to.ID, true) }

// Rejoin ends Isolate.
func (n *Node) Rejoin() error { return n.cluster.net.SetPeerLink(n.ID, true) }

// Shape makes the node's link to its peers slow, thin or lossy, for what it sends and what
// it receives; zero Shapes restore it. Only with Options.Namespaces.
func (n *Node) Shape(out, in netlab.Shape) error { return n.cluster.net.ShapeLink(n.ID, out, in) }

func (n *Node) skewPath() string { return n.cluster.path(fmt.Sprintf("node%d.clock", n.ID)) }

// SetClock makes the clock wrong by which the node measures leases. Only with
// Options.Clocks.
func (n *Node) SetClock(s host.Skew) error {
	n.skew = s
	return host.WriteSkew(n.skewPath(), s)
}

// PID is the process of the node's agent, which must run.
func (n *Node) PID() int { return n.cmd.Process.Pid }
