package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
)

// The test binary plays a node, or a process that runs a demo, when it is started
// as one.
func TestMain(m *testing.M) {
	switch os.Getenv("PHXSQL_DEMO_TEST") {
	case "node":
		playNode()
	case "runner":
		playRunner(os.Getenv("PHXSQL_DEMO_DIR"))
	default:
		os.Exit(m.Run())
	}
}

// playNode waits for SIGTERM.
func playNode() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("started", strings.Join(os.Args[1:], " "))
	<-c
	fmt.Println("stopped")
}

// playRunner runs the nodes of a demo until SIGTERM.
func playRunner(dir string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := Open(dir, 2, 0)
	if err != nil {
		panic(err)
	}
	k, err := l.takeLock()
	if err != nil {
		panic(err)
	}
	defer k.release()
	os.Setenv("PHXSQL_DEMO_TEST", "node")
	s := &supervisor{l: l, program: os.Args[0], say: func(string, ...any) {}, pause: time.Millisecond}
	s.run(ctx)
}

// eventually waits until f is true, and fails the test if it is not in time.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(90 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func newLayout(t *testing.T, nodes int) Layout {
	t.Helper()
	l, err := Open(filepath.Join(t.TempDir(), "d"), nodes, 0)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPorts(t *testing.T) {
	l := Layout{BasePort: 6100}
	a := l.Addresses(2)
	if a.RW != "127.0.0.1:6126" || a.RO != "127.0.0.1:6127" || a.Peer != "127.0.0.1:6128" || a.Admin != "127.0.0.1:6129" {
		t.Errorf("%+v", a)
	}
	if l.RWPort(2) != 6126 {
		t.Errorf("%d", l.RWPort(2))
	}
}

func TestOpenKeepsWhatIsThere(t *testing.T) {
	l := newLayout(t, 2)
	if l.Nodes != 2 || l.BasePort != DefaultBasePort {
		t.Fatalf("%+v", l)
	}
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(l.SecretPath())
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(l.Dir, 0, 0)
	if err != nil || again != l {
		t.Errorf("%+v, %v", again, err)
	}
	if err := again.write(); err != nil {
		t.Fatal(err)
	}
	if s, err := os.ReadFile(l.SecretPath()); err != nil || string(s) != string(secret) {
		t.Errorf("the secret has changed, %v", err)
	}
	for _, other := range []struct{ nodes, port int }{{3, 0}, {0, 7000}} {
		var e *Error
		if _, err := Open(l.Dir, other.nodes, other.port); !errors.As(err, &e) || !strings.Contains(e.Hint, "demo clean") {
			t.Errorf("%+v: %v", other, err)
		}
	}
	for i := 1; i <= 2; i++ {
		c, err := l.Config(i)
		if err != nil || int(c.Node.ID) != i || c.Listen != l.Addresses(i) || c.Node.DataDir != filepath.Join(l.Dir, fmt.Sprintf("node%d", i)) {
			t.Errorf("node %d: %+v, %v", i, c, err)
		}
	}
}

func TestOpenRefusesOddNumbers(t *testing.T) {
	for _, c := range []struct{ nodes, port int }{{10, 0}, {-1, 0}, {3, 80}, {3, 65500}} {
		if _, err := Open(t.TempDir(), c.nodes, c.port); err == nil {
			t.Errorf("%+v accepted", c)
		}
	}
}

func TestForeignFolderIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "thesis.tex")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.write(); err == nil {
		t.Error("a demo was made among foreign files")
	}
	if err := Clean(dir); err == nil {
		t.Error("a foreign folder was removed")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestTakenPortsAreOneErrorAndLeaveNothing(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	port := lis.Addr().(*net.TCPAddr).Port
	l := newLayout(t, 1)
	l.BasePort = port - 16 // node 1's read-write port
	err = Prepare(t.Context(), Options{Layout: l})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("demo.test (pid %d) has %d", os.Getpid(), port)) {
		t.Errorf("got %v", err)
	}
	if hint := api.HintOf(err); !strings.Contains(hint, "--base-port") {
		t.Errorf("hint %q", hint)
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestOneRunnerAtATime(t *testing.T) {
	l := newLayout(t, 1)
	if _, running, err := l.Running(); running || err != nil {
		t.Fatal("running before it was started", err)
	}
	k, err := l.takeLock()
	if err != nil {
		t.Fatal(err)
	}
	pid, running, err := l.Running()
	if pid != os.Getpid() || !running || err != nil {
		t.Errorf("%d, %v, %v", pid, running, err)
	}
	var e *Error
	if _, err := l.takeLock(); !errors.As(err, &e) || !strings.Contains(e.Hint, "demo stop") {
		t.Errorf("a second one: %v", err)
	}
	k.release()
	if _, running, _ := l.Running(); running {
		t.Error("running after its end")
	}
}

func TestDeadNodeIsStartedAgain(t *testing.T) {
	t.Setenv("PHXSQL_DEMO_TEST", "node")
	l := newLayout(t, 2)
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said []string
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, fmt.Sprintf(format, args...))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&supervisor{l: l, program: os.Args[0], say: say, pause: time.Millisecond}).run(ctx)
	}()
	started := func(i, times int) func() bool {
		return func() bool {
			b, _ := os.ReadFile(l.LogPath(i))
			pid, err := l.PID(i)
			return err == nil && pid > 0 && strings.Count(string(b), "started server --config "+l.ConfigPath(i)) == times
		}
	}
	eventually(t, "node 1 starts", started(1, 1))
	eventually(t, "node 2 starts", started(2, 1))
	pid, err := l.PID(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node 1 starts again", started(1, 2))
	cancel()
	<-done
	for i, want := range map[int]int{1: 1, 2: 1} {
		b, err := os.ReadFile(l.LogPath(i))
		if err != nil || strings.Count(string(b), "stopped") != want {
			t.Errorf("node %d was not stopped in order: %s %v", i, b, err)
		}
		if _, err := l.PID(i); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("node %d left its pid: %v", i, err)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "node1 ended (signal: killed)") {
		t.Errorf("said %q", said)
	}
}

func TestHopelessNodeIsLeftAlone(t *testing.T) {
	l := newLayout(t, 1)
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	var said []string
	s := &supervisor{l: l, program: "/bin/false", say: func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) }}
	s.run(t.Context())
	if n := len(said); n != maxTooSoon || !strings.Contains(said[n-1], "left alone") {
		t.Errorf("said %q", said)
	}
}

// runner starts a process that runs a demo, and returns it with a channel that is
// closed when it has ended.
func runner(t *testing.T, l Layout) (*os.Process, <-chan struct{}) {
	t.Helper()
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PHXSQL_DEMO_TEST=runner", "PHXSQL_DEMO_DIR="+l.Dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	eventually(t, "both nodes start", func() bool {
		_, err1 := l.PID(1)
		_, err2 := l.PID(2)
		return err1 == nil && err2 == nil
	})
	return cmd.Process, ended
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStopAndClean(t *testing.T) {
	l := newLayout(t, 2)
	runner(t, l)
	if err := Clean(l.Dir); err == nil {
		t.Error("a running demo was removed")
	}
	pid, _ := l.PID(1)
	if was, err := l.Stop(t.Context()); !was || err != nil {
		t.Fatal(was, err)
	}
	if alive(pid) {
		t.Error("a node outlived its demo")
	}
	if was, err := l.Stop(t.Context()); was || err != nil {
		t.Error("stopped twice", err)
	}
	if err := Clean(l.Dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder is still there")
	}
}

func TestNoOrphansWhenTheRunnerIsKilled(t *testing.T) {
	l := newLayout(t, 2)
	process, ended := runner(t, l)
	one, _ := l.PID(1)
	two, _ := l.PID(2)
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	eventually(t, "the nodes end with their runner", func() bool { return !alive(one) && !alive(two) })
}

func TestNotServing(t *testing.T) {
	m := func(name string, s api.State, master bool) api.MemberStatus {
		return api.MemberStatus{Name: name, State: s, Master: master}
	}
	for want, ms := range map[string][]api.MemberStatus{
		"":                    {m("a", api.StateMaster, true), m("b", api.StateFollower, false)},
		"there is no master":  {m("a", api.StateFollower, false)},
		"b is starting: slow": {m("a", api.StateMaster, true), {Name: "b", State: api.StateStarting, Problems: []api.Problem{{Reason: "slow"}}}},
		"a is promoting":      {m("a", api.StatePromoting, false), m("b", api.StateFollower, false)},
	} {
		if got := notServing(api.Status{Members: ms}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
