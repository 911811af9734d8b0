package drill

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	mysql "github.com/go-sql-driver/mysql"
)

// Stage is a cluster that runs already, and what may be done to it: a staging cluster. The
// drill reaches it through the client ports and through commands that somebody wrote down.
type Stage struct {
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"` // relative to the stage's own file
	Nodes        []StageNode
	Faults       []StageFault

	password string
}

// StageNode is a node of a stage.
type StageNode struct {
	Name string `toml:"name"` // what {node} stands for in commands
	RW   string `toml:"rw"`   // the ports, host:port
	RO   string `toml:"ro"`
}

// StageFault is what may be done to nodes of a stage.
type StageFault struct {
	Name   string        `toml:"name"`
	On     string        `toml:"on"`    // master, follower, any or all; default any
	Break  string        `toml:"break"` // shell commands, run for each node; {node} is its name
	Mend   string        `toml:"mend"`
	Hold   time.Duration `toml:"hold"`   // between the two; default 3 s
	Outage bool          `toml:"outage"` // the cluster need not serve until Mend
}

// commandLimit bounds one command of a stage.
const commandLimit = 2 * time.Minute

// LoadStage reads a stage.
func LoadStage(path string) (*Stage, error) {
	var s struct {
		Stage
		Node  []StageNode  `toml:"node"`
		Fault []StageFault `toml:"fault"`
	}
	meta, err := toml.DecodeFile(path, &s)
	if err != nil {
		return nil, fmt.Errorf("read target: %w", err)
	}
	if strange := meta.Undecoded(); len(strange) > 0 {
		return nil, fmt.Errorf("read target %s: there is no setting %s", path, strange[0])
	}
	s.Nodes, s.Faults = s.Node, s.Fault
	if s.PasswordFile != "" {
		if !filepath.IsAbs(s.PasswordFile) {
			s.PasswordFile = filepath.Join(filepath.Dir(path), s.PasswordFile)
		}
		b, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read target: %w", err)
		}
		s.password = strings.TrimRight(string(b), "\r\n")
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("read target %s: %w", path, err)
	}
	return &s.Stage, nil
}

// check refuses what is incomplete, all of it at once, and fills in defaults.
func (s *Stage) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.User == "" {
		refuse("user is missing")
	}
	if len(s.Nodes) == 0 {
		refuse("there is no [[node]]")
	}
	if len(s.Faults) == 0 {
		refuse("there is no [[fault]]")
	}
	for i, n := range s.Nodes {
		if n.Name == "" || n.RW == "" || n.RO == "" {
			refuse("node %d needs name, rw and ro", i+1)
		}
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		if f.Name == "" || f.Break == "" || f.Mend == "" {
			refuse("fault %d needs name, break and mend", i+1)
		}
		if f.On == "" {
			f.On = "any"
		}
		if !slices.Contains([]string{"master", "follower", "any", "all"}, f.On) {
			refuse("fault %s: on is %q, not master, follower, any or all", f.Name, f.On)
		}
		if f.Hold == 0 {
			f.Hold = 3 * time.Second
		}
		if f.Hold < 0 {
			refuse("fault %s: hold is negative", f.Name)
		}
	}
	return errors.Join(errs...)
}

// String tells what would be done.
func (s *Stage) String() string {
	var b strings.Builder
	for _, f := range s.Faults {
		fmt.Fprintf(&b, "%s (on %s, for %v)\n", f.Name, f.On, f.Hold)
		for _, n := range s.Nodes {
			fmt.Fprintf(&b, "  %s: %s\n  %s  then: %s\n", n.Name, n.command(f.Break), strings.Repeat(" ", len(n.Name)), n.command(f.Mend))
		}
	}
	return b.String()
}

func (n StageNode) command(text string) string { return strings.ReplaceAll(text, "{node}", n.Name) }

// run runs a command of a fault for some nodes, and returns what failed.
func (s *Stage) run(ctx context.Context, nodes []int, text string) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	var errs []error
	for _, i := range nodes {
		line := s.Nodes[i].command(text)
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
		cmd.WaitDelay = time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("run %q: %w: %s", line, err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(errs...)
}

// aim chooses the nodes that a fault hits, given the master.
func (s *Stage) aim(f StageFault, master int, dice *rand.Rand) []int {
	all := dice.Perm(len(s.Nodes))
	switch f.On {
	case "all":
		return all
	case "master":
		return []int{master}
	case "follower":
		all = slices.DeleteFunc(all, func(i int) bool { return i == master && len(s.Nodes) > 1 })
	}
	return all[:1]
}

// Ports are those of each node, numbered from 1.
func (s *Stage) Ports() []Ports {
	var ps []Ports
	for i, n := range s.Nodes {
		ps = append(ps, Ports{i + 1, n.RW, n.RO})
	}
	return ps
}

// Open returns a pool for a port.
func (s *Stage) Open(addr, database string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = s.User, s.password, "tcp", addr, database
	cfg.Timeout = 12 * time.Second
	cfg.Logger = &mysql.NopLogger{}
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", addr, err)
	}
	return sql.OpenDB(conn), nil
}

// Exec runs statements through the first read-write port that takes them all.
func (s *Stage) Exec(ctx context.Context, statements ...string) error {
	var errs []error
	for _, n := range s.Nodes {
		err := execAll(ctx, s, n.RW, statements)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func execAll(ctx context.Context, t Target, addr string, statements []string) error {
	db, err := t.Open(addr, "")
	if err != nil {
		return err
	}
	defer db.Close()
	for _, q := range statements {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("execute %.60q: %w", q, err)
		}
	}
	return nil
}

// master finds out to whose server a read-write port leads.
func (s *Stage) master(ctx context.Context) (int, error) {
	const who = "SELECT @@GLOBAL.server_uuid"
	ask := func(addr string) (string, error) {
		short, cancel := context.WithTimeout(ctx, registerLimit)
		defer cancel()
		db, err := s.Open(addr, "")
		if err != nil {
			return "", err
		}
		defer db.Close()
		lines, err := query(short, db, who)
		if err != nil {
			return "", err
		}
		return lines[0], nil
	}
	var errs []error
	own := map[string]int{}
	for i, n := range s.Nodes {
		id, err := ask(n.RO)
		errs = append(errs, err)
		if err == nil {
			own[id] = i
		}
	}
	for _, n := range s.Nodes {
		id, err := ask(n.RW)
		if i, ok := own[id]; err == nil && ok {
			return i, nil
		}
		errs = append(errs, err)
	}
	return 0, fmt.Errorf("find the master: no read-write port leads to a node whose read-only port answers: %w", errors.Join(errs...))
}
