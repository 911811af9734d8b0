package paxos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/netlab"
)

// waitLimit bounds every wait of these tests, on a busy machine.
const waitLimit = 90 * time.Second

// Ports of every node, in its namespace.
const (
	peerPort   = 7400
	clientPort = 7500
)

// cluster is so many processes of the sample kv, each in a network namespace.
type cluster struct {
	t     *testing.T
	dir   string
	lab   *netlab.Lab
	nodes []*process
}

// process is one node, numbered from 1.
type process struct {
	c      *cluster
	id     int
	cmd    *exec.Cmd
	exited chan struct{}
}

func newCluster(t *testing.T, nodes int) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir, err := os.MkdirTemp("", "phxkv")
	if err != nil {
		t.Fatal(err)
	}
	lab, err := netlab.New(nodes)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, lab: lab}
	t.Cleanup(c.close)
	for id := 1; id <= nodes; id++ {
		c.nodes = append(c.nodes, &process{c: c, id: id})
	}
	for _, p := range c.nodes {
		p.start()
	}
	return c
}

func (c *cluster) close() {
	for _, p := range c.nodes {
		if p.cmd != nil {
			p.kill()
		}
	}
	c.lab.Close()
	if c.t.Failed() {
		c.t.Logf("the nodes' files are in %s", c.dir)
		return
	}
	os.RemoveAll(c.dir)
}

func (c *cluster) addrs(of func(int) string, port int) string {
	var list []string
	for _, p := range c.nodes {
		list = append(list, fmt.Sprintf("%s:%d", of(p.id), port))
	}
	return strings.Join(list, ",")
}

// url is where clients reach a node.
func (p *process) url() string {
	return fmt.Sprintf("http://%s:%d", p.c.lab.ClientAddr(p.id), clientPort)
}

func (p *process) start() {
	p.c.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.c.dir, fmt.Sprintf("node%d.log", p.id)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "-v", "-node", fmt.Sprint(p.id), "-dir", p.c.dir, "-snapshot", "40", "-keep", "60",
		"-peers", p.c.addrs(p.c.lab.PeerAddr, peerPort), "-http", p.c.addrs(p.c.lab.ClientAddr, clientPort))
	cmd.Stdout, cmd.Stderr = log, log
	if err := p.c.lab.Within(p.id, cmd.Start); err != nil {
		p.c.t.Fatal(err)
	}
	p.cmd, p.exited = cmd, make(chan struct{})
	go func(done chan struct{}) {
		_ = cmd.Wait() // it was killed
		close(done)
	}(p.exited)
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself: its log says why
	<-p.exited
	p.cmd = nil
}

func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil {
		p.c.t.Errorf("signal node %d: %v", p.id, err)
	}
}

func (p *process) link(up bool) {
	if err := p.c.lab.SetPeerLink(p.id, up); err != nil {
		p.c.t.Error(err)
	}
}

// status is what a node says about itself.
type status struct {
	Leader   int    `json:"leader"`
	Leads    bool   `json:"leads"`
	Chosen   uint64 `json:"chosen"`
	Applied  uint64 `json:"applied"`
	Restored int    `json:"restored"`
}

func (p *process) status() (status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url()+"/", nil)
	if err != nil {
		return status{}, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return status{}, err
	}
	defer resp.Body.Close()
	var s status
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// leader waits for a node that leads.
func (c *cluster) leader() *process {
	c.t.Helper()
	var lead *process
	c.until("leader", func() error {
		for _, p := range c.nodes {
			if s, err := p.status(); err == nil && s.Leads {
				lead = p
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return lead
}

// other is the k-th node behind the given one.
func (c *cluster) other(p *process, k int) *process { return c.nodes[(p.id-1+k)%len(c.nodes)] }

// whole waits until every node answers and has applied what the leader had.
func (c *cluster) whole() {
	c.t.Helper()
	c.until("all nodes at one point", func() error {
		var want uint64
		for _, p := range c.nodes {
			s, err := p.status()
			if err != nil {
				return fmt.Errorf("node %d: %w", p.id, err)
			}
			if s.Leads {
				want = s.Chosen
			}
		}
		for _, p := range c.nodes {
			if s, err := p.status(); err != nil || want == 0 || s.Applied < want {
				return fmt.Errorf("node %d has %d of %d: %w", p.id, s.Applied, want, err)
			}
		}
		return nil
	})
}

// until waits until ok.
func (c *cluster) until(what string, ok func() error) {
	c.t.Helper()
	deadline := time.After(waitLimit)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for err := ok(); err != nil; err = ok() {
		select {
		case <-poll.C:
		case <-deadline:
			c.t.Fatalf("no %s within %v: %v\n%s", what, waitLimit, err, c.tails())
		}
	}
}

func (c *cluster) tails() string {
	var b strings.Builder
	for _, p := range c.nodes {
		text, _ := os.ReadFile(filepath.Join(c.dir, fmt.Sprintf("node%d.log", p.id)))
		fmt.Fprintf(&b, "--- node %d\n%s\n", p.id, text[max(0, len(text)-1500):])
	}
	return string(bytes.ToValidUTF8([]byte(b.String()), nil))
}
