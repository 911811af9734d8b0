package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// member is a node process of a cluster under test.
type member struct {
	cmd   *exec.Cmd
	in    *json.Encoder
	close func() error
	lines chan string // its standard output; closed at its end
	errs  string      // file of its standard error
}

const (
	readyLimit = 40 * time.Second
	quitLimit  = 5 * time.Second
)

var errDied = errors.New("node process ended")

func startMember(sys string, s seat) (*member, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &member{lines: make(chan string, 16), errs: s.dir + ".err"}
	m.cmd = exec.Command(self, "node", sys, strconv.Itoa(s.index), strconv.Itoa(s.port), strconv.Itoa(s.groups), s.dir)
	errs, err := os.Create(m.errs)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	m.cmd.Stderr = errs
	in, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.in, m.close = json.NewEncoder(in), in.Close
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	go func() {
		defer close(m.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			m.lines <- sc.Text()
		}
	}()
	return m, nil
}

// expect waits for a line that begins with a word and returns the rest.
func (m *member) expect(word string, limit time.Duration) (string, error) {
	timeout := time.After(limit)
	for {
		select {
		case l, ok := <-m.lines:
			if !ok {
				b, _ := os.ReadFile(m.errs)
				return "", fmt.Errorf("%w: %s", errDied, strings.TrimSpace(string(b[max(0, len(b)-600):])))
			}
			if rest, ok := strings.CutPrefix(l, word); ok {
				return strings.TrimSpace(rest), nil
			}
		case <-timeout:
			return "", fmt.Errorf("no %s within %v", word, limit)
		}
	}
}

// end closes the process's input, and kills it if that does not end it.
func (m *member) end() {
	m.close()
	kill := time.AfterFunc(quitLimit, func() { m.cmd.Process.Kill() })
	for range m.lines {
	}
	m.cmd.Wait() // how it ended says nothing about what was measured
	kill.Stop()
}

// cluster is three node processes of one system.
type cluster struct {
	dir     string
	members []*member
}

func startCluster(dir, sys string, groups, port int) (*cluster, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	for i := range nodes {
		m, err := startMember(sys, seat{index: i, port: port, groups: groups, dir: filepath.Join(dir, strconv.Itoa(i))})
		if err != nil {
			c.end()
			return nil, err
		}
		c.members = append(c.members, m)
	}
	for i, m := range c.members {
		if _, err := m.expect("READY", readyLimit); err != nil {
			c.end()
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
	}
	return c, nil
}

func (c *cluster) end() {
	for _, m := range c.members {
		m.end()
	}
	os.RemoveAll(c.dir)
}

// sample is one measured cell.
type sample struct {
	result
	CPU    time.Duration `json:"cpu"`     // of all processes
	Memory int64         `json:"memory"`  // peak of the largest process, bytes
	Others float64       `json:"others"`  // cores that everything else on the machine used
	Leader time.Duration `json:"leader"`  // CPU of the leader's process
	Disk   int64         `json:"written"` // bytes that one node caused to be written, on average
}

// measure runs one job.
func (c *cluster) measure(j job) (sample, error) {
	lead := c.members[0]
	if j.Profile != "" {
		if err := c.profileFollower(j); err != nil {
			return sample{}, err
		}
	}
	if err := lead.in.Encode(j); err != nil {
		return sample{}, fmt.Errorf("send job: %w", err)
	}
	if _, err := lead.expect("START", j.Warm+readyLimit); err != nil {
		return sample{}, err
	}
	before, all := c.usage(), machineCPU()
	if _, err := lead.expect("STOP", j.Time+readyLimit); err != nil {
		return sample{}, err
	}
	after, allAfter := c.usage(), machineCPU()
	text, err := lead.expect("RESULT", 2*proposeLimit)
	if err != nil {
		return sample{}, err
	}
	var s sample
	if err := json.Unmarshal([]byte(text), &s.result); err != nil {
		return sample{}, fmt.Errorf("read result: %w", err)
	}
	s.CPU, s.Leader, s.Memory = after.cpu-before.cpu, after.leader-before.leader, after.peak
	s.Disk = (after.written - before.written) / nodes
	s.Others = max(0, float64(allAfter-all-s.CPU)/float64(s.Time))
	return s, nil
}

// profileFollower has a follower write a profile while the job runs elsewhere.
func (c *cluster) profileFollower(j job) error {
	j.Proposers = 0
	j.Profile += ".follower"
	if err := c.members[1].in.Encode(j); err != nil {
		return fmt.Errorf("send job: %w", err)
	}
	return nil
}

// usage is what the processes of a cluster have used.
type usage struct {
	cpu, leader   time.Duration
	peak, written int64
}

func (c *cluster) usage() usage {
	var u usage
	for i, m := range c.members {
		cpu := processCPU(m.cmd.Process.Pid)
		u.cpu += cpu
		if i == 0 {
			u.leader = cpu
		}
		u.peak = max(u.peak, procField(m.cmd.Process.Pid, "status", "VmHWM:")<<10)
		u.written += procField(m.cmd.Process.Pid, "io", "write_bytes:")
	}
	return u
}

// clockTick is USER_HZ, which Linux fixes at 100 for all that /proc shows.
const clockTick = time.Second / 100

func processCPU(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // gone: counts as nothing
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	return ticks(f[11]) + ticks(f[12])
}

func ticks(s string) time.Duration {
	n, _ := strconv.ParseInt(s, 10, 64)
	return time.Duration(n) * clockTick
}

// machineCPU is what all processes of the machine have used.
func machineCPU() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	var sum time.Duration
	for i, f := range strings.Fields(line) {
		if i > 0 && i != 4 && i != 5 && i < 9 { // all but idle and iowait; guest time is in user time
			sum += ticks(f)
		}
	}
	return sum
}

func procField(pid int, file, name string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, name); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}
