package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/netlab"
)

// stranger is a node that does not belong to the cluster.
type stranger struct {
	config, log, peer string
	client            *api.Client
}

// newStranger writes the configuration of one; it need not run.
func newStranger(t *testing.T, id int, dataDir, secretFile string) *stranger {
	t.Helper()
	dir, err := os.MkdirTemp("", "phxs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dataDir == "" {
		dataDir = filepath.Join(dir, "data")
	}
	ports, err := netlab.FreePorts(netlab.Loopback(), 4)
	if err != nil {
		t.Fatal(err)
	}
	var addr [4]string
	for i, p := range ports {
		addr[i] = net.JoinHostPort(netlab.Loopback(), strconv.Itoa(p))
	}
	s := &stranger{config: filepath.Join(dir, "node.toml"), log: filepath.Join(dir, "log"), peer: addr[2]}
	text := fmt.Sprintf("[node]\nid = %d\ndata_dir = %q\n[listen]\nrw = %q\nro = %q\npeer = %q\nadmin = %q\n[cluster]\nsecret_file = %q\n",
		id, dataDir, addr[0], addr[1], addr[2], addr[3], secretFile)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if !identity.HasSecret(secretFile) {
		return s
	}
	secret, err := identity.LoadSecret(secretFile)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := secret.Credentials(1)
	if err != nil {
		t.Fatal(err)
	}
	s.client = api.NewClient([]string{addr[3]}, api.ClientTLS(cred))
	t.Cleanup(s.client.Close)
	return s
}

// run starts a phxsql command that goes on, and returns what ends it.
func (s *stranger) run(t *testing.T, args ...string) (end func()) {
	t.Helper()
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, append(args, "--config", s.config)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return end
}

// problems are what the stranger says of itself and of those that it knows.
func (s *stranger) problems(ctx context.Context) ([]api.Problem, error) {
	st, err := s.client.Status(ctx)
	var ps []api.Problem
	for _, m := range st.Members {
		ps = append(ps, m.Problems...)
	}
	return ps, err
}

func problemsOf(n *drill.Node) func(context.Context) ([]api.Problem, error) {
	return func(ctx context.Context) ([]api.Problem, error) {
		m, err := n.Self(ctx)
		return m.Problems, err
	}
}

// mustSay waits until somebody has a problem of a name, with a reason that holds a text,
// and a hint.
func mustSay(t *testing.T, who string, ask func(context.Context) ([]api.Problem, error), name, text string) {
	t.Helper()
	ctx := limit(t, time.Minute)
	err := drill.Eventually(ctx, func() error {
		ps, err := ask(ctx)
		for _, p := range ps {
			if p.Name == name && strings.Contains(p.Reason, text) && p.Hint != "" {
				t.Logf("%s: %s: %s\n  hint: %s", who, p.Name, p.Reason, p.Hint)
				return nil
			}
		}
		return fmt.Errorf("%s does not say %s (%s): %+v, %v", who, name, text, ps, err)
	})
	if err != nil {
		t.Error(err)
	}
}

// refuses runs a command that must fail for a reason, with a hint.
func refuses(t *testing.T, c *drill.Cluster, reason string, args ...string) {
	t.Helper()
	out, err := c.Run(limit(t, time.Minute), args...)
	if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("phxsql %s: %s%v, want %q and a hint", strings.Join(args, " "), out, err, reason)
		return
	}
	t.Log(err)
}

// logged waits for a line in a node's own log.
func logged(t *testing.T, path string, parts ...string) {
	t.Helper()
	err := drill.Eventually(limit(t, time.Minute), func() error {
		b, err := os.ReadFile(path)
	next:
		for line := range strings.Lines(string(b)) {
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue next
				}
			}
			return nil
		}
		return fmt.Errorf("%s has no line with %q: %v", path, parts, err)
	})
	if err != nil {
		t.Error(err)
	}
}

// TestStrangers brings to a cluster whatever does not belong to it. Each is refused, and
// both sides say why and what to do about it. The cluster goes on meanwhile. Its
// certificates live for half a minute, so that they are renewed on the way.
func TestStrangers(t *testing.T) {
	c := start(t, drill.Options{Nodes: 1})
	first := c.Nodes[0]
	ctx := limit(t, 4*time.Minute)
	shown, err := first.Self(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := load(t, c)
	for _, n := range []*drill.Node{
		bring(t, c, 2, "1 voter, 2 witness", "--role", "witness"), bring(t, c, 3, "1 voter, 2 witness, 3 witness", "--role", "witness"),
	} {
		n.Witness = true
	}
	t.Run("tokens", func(t *testing.T) { strangeTokens(t, c) })
	t.Run("another secret", func(t *testing.T) { anotherSecret(t, c) })
	t.Run("clone", func(t *testing.T) { clone(t, c, c.Nodes[2]) })
	t.Run("wiped", func(t *testing.T) { wiped(t, c, c.Nodes[2]) })

	err = drill.Eventually(ctx, func() error {
		m, err := first.Self(ctx)
		if err == nil && !m.CertificateExpires.After(shown.CertificateExpires) {
			err = fmt.Errorf("the certificate is still that of the beginning, until %v", m.CertificateExpires)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// All connections that the cluster needs are made anew, with certificates that
	// nobody has seen at the beginning.
	if err := c.Nodes[1].KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[1].Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.WaitAck(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(c.Nodes[2]); err != nil {
		t.Fatal(err)
	}
	judge(t, c, w)
}

// strangeTokens shows the cluster tokens that let nobody in.
func strangeTokens(t *testing.T, c *drill.Cluster) {
	file := filepath.Join(t.TempDir(), "token")
	s := newStranger(t, 8, "", filepath.Join(t.TempDir(), "secret"))
	join := func(token, reason string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(t, c, reason, "join", "--prepare", "--config", s.config, "--seed", c.Nodes[0].Admin, "--token-file", file)
	}
	used, err := os.ReadFile(filepath.Join(filepath.Dir(c.Nodes[2].Config()), "node3.token"))
	if err != nil {
		t.Fatal(err)
	}
	join(string(used), "it was used at")
	logged(t, c.Nodes[0].Log(), "token refused", "it was used at")
	hidden(t, c, s, strings.TrimSpace(string(used)))

	out, err := c.Run(limit(t, time.Minute), "token", "create", "--lifetime", "1s", "-o", "json")
	var made api.TokenResult
	if err == nil {
		err = json.Unmarshal([]byte(out), &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Until(made.Expires) + time.Millisecond)
	join(made.Token, "it has expired at")
	logged(t, c.Nodes[0].Log(), "token refused", "it has expired at")

	other, err := identity.NewSecret([]byte(rand.Text() + rand.Text()))
	if err != nil {
		t.Fatal(err)
	}
	join(identity.Token{Maker: 1, Secret: "s", Authority: other.AuthorityKey()}.String(), "this node is not of the token's cluster")
	logged(t, c.Nodes[0].Log(), "connection refused", "component=api", "another cluster's secret or token")
	if identity.HasSecret(filepath.Join(filepath.Dir(s.config), "secret")) {
		t.Error("the stranger got the secret")
	}
}

// hidden runs a join with a token on its command line, which is refused, and makes sure
// that the process which goes on does not show it. The address that it asks first takes
// connections and says nothing.
func hidden(t *testing.T, c *drill.Cluster, s *stranger, token string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "join", "--prepare", "--config", s.config, "--seed", l.Addr().String(), "--seed", c.Nodes[0].Admin, "--token", token)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept() // it has read its token by now
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(line), "--token-file") || strings.Contains(string(line), token) {
		t.Errorf("the process list shows %q, %v", strings.ReplaceAll(string(line), "\x00", " "), err)
	}
	conn.Close()
	if err := cmd.Wait(); err == nil {
		t.Errorf("the join succeeded: %s", out.String())
	}
}

// anotherSecret has a node with another cluster's secret try to join, and a member
// invite it.
func anotherSecret(t *testing.T, c *drill.Cluster) {
	file := filepath.Join(t.TempDir(), "secret")
	if _, err := identity.CreateSecret(file); err != nil {
		t.Fatal(err)
	}
	s := newStranger(t, 5, "", file)
	end := s.run(t, "join", "--role", "witness", "--seed", c.Nodes[0].Admin)
	defer end()
	mustSay(t, "the stranger", s.problems, "another_secret", "unknown authority")
	refuses(t, c, "another cluster secret", "member", "add", "5="+s.peer, "--role", "witness")
	mustSay(t, "the stranger", s.problems, "wrong_secret", "does not accept this node's certificate")
}

// clone runs a copy of a member's machine beside it.
func clone(t *testing.T, c *drill.Cluster, n *drill.Node) {
	ctx := limit(t, time.Minute)
	if err := n.KillAll(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(n.Dir())); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	s := newStranger(t, n.ID, dir, filepath.Join(filepath.Dir(n.Config()), "cluster.secret"))
	end := s.run(t, "server")
	mustSay(t, "the clone", s.problems, "duplicate_node", "is connected under that id")
	mustSay(t, "node 1", problemsOf(c.Nodes[0]), "duplicate_node", fmt.Sprintf("node %d at", n.ID))
	end()
	if err := c.WaitServing(ctx); err != nil {
		t.Error(err)
	}
}

// wiped starts a member with an empty disk.
func wiped(t *testing.T, c *drill.Cluster, n *drill.Node) {
	if err := n.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	mustSay(t, "the wiped node", problemsOf(n), "wrong_log", "its data directory was replaced")
	mustSay(t, "node 1", func(ctx context.Context) ([]api.Problem, error) {
		st, err := c.Status(ctx)
		var ps []api.Problem
		for _, m := range st.Members {
			if m.ID != 0 && int(m.ID) == n.ID {
				ps = append(ps, m.Problems...)
			}
		}
		return ps, err
	}, "wrong_log", "its data directory was replaced")
}
