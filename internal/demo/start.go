package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/identity"
)

// startLimit is how long the nodes get to serve. The first start makes each
// node's database.
const startLimit = 3 * time.Minute

// tellEvery is how often a long wait is explained.
const tellEvery = 10 * time.Second

// clientUser is the account that a demo makes.
const clientUser = "demo"

// Options are what a run needs.
type Options struct {
	Layout Layout
	// Program is the phxsql binary.
	Program string
	// Say tells the user a line.
	Say func(format string, args ...any)
	// Ready is called once, when all nodes serve.
	Ready func(st api.Status)
}

// Prepare finds the engine and writes what the nodes need. It changes nothing if
// the demo runs or cannot run.
func Prepare(ctx context.Context, o Options) error {
	k, err := o.claim()
	if err != nil {
		return err
	}
	defer k.release()
	return prepare(ctx, o)
}

// claim takes the lock. For a new demo it looks at the ports first: one that
// cannot run leaves no folder behind.
func (o Options) claim() (*lock, error) {
	if !Exists(o.Layout.Dir) {
		if err := o.Layout.checkPorts(); err != nil {
			return nil, err
		}
	}
	return o.Layout.takeLock()
}

func prepare(ctx context.Context, o Options) error {
	l := o.Layout
	if err := l.checkPorts(); err != nil {
		return err
	}
	if err := l.write(); err != nil {
		return err
	}
	if err := l.checkMachine(); err != nil {
		return err
	}
	in, err := engine.Ensure(ctx, engine.Options{Progress: func(line string) { o.Say("%s", line) }})
	if err != nil {
		return err
	}
	o.Say("engine: %s", in)
	return in.WriteWrapper(l.path("mysql-client"), "mysql")
}

// Run starts the nodes, makes a cluster of them the first time, and keeps them
// running until ctx ends.
func Run(ctx context.Context, o Options) error {
	k, err := o.claim()
	if err != nil {
		return err
	}
	defer k.release()
	if err := prepare(ctx, o); err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &supervisor{l: o.Layout, program: o.Program, say: o.Say, pause: restartAfter}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.run(run)
	}()
	err = bringUp(run, o)
	if err == nil {
		select {
		case <-ctx.Done():
		case <-ended:
			err = &Error{"no node is left", "see " + o.Layout.path("node*.log")}
		}
	}
	if ctx.Err() != nil {
		err = nil // the user ended it
		o.Say("stopping all nodes")
	}
	cancel()
	<-ended
	return err
}

// Detach starts a process that runs the demo after this one has ended, and waits
// until it serves. The process is the same program with the given arguments, its
// output in runner.log.
func Detach(ctx context.Context, o Options, args []string) error {
	if err := Prepare(ctx, o); err != nil {
		return err
	}
	path := o.Layout.path("runner.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of the demo: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(o.Program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the demo's runner: %w", err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	up := make(chan error, 1)
	go func() {
		st, err := waitServing(wait, o, true)
		if err == nil {
			o.Ready(st)
		}
		up <- err
	}()
	select {
	case err := <-up:
		if err != nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = <-gone // how it ended matters less than why it was ended
		}
		return err
	case err := <-gone:
		return &Error{fmt.Sprintf("the demo's runner ended: %v", err), "see " + path}
	}
}

// bringUp waits for the nodes, makes them a cluster if they are blank, and calls
// Ready.
func bringUp(ctx context.Context, o Options) error {
	st, err := waitServing(ctx, o, false)
	if err != nil {
		return err
	}
	if st.Cluster == "" {
		o.Say("making a cluster of the nodes")
		if err := initialise(ctx, o.Layout); err != nil {
			return err
		}
		if st, err = waitServing(ctx, o, true); err != nil {
			return err
		}
	}
	o.Ready(st)
	return nil
}

// clients returns a client for each node, and one that asks whichever answers.
func (l Layout) clients() (each []*api.Client, any *api.Client, err error) {
	secret, err := identity.LoadSecret(l.SecretPath())
	if err != nil {
		return nil, nil, err
	}
	cred, err := secret.Credentials(1)
	if err != nil {
		return nil, nil, err
	}
	var addrs []string
	for i := 1; i <= l.Nodes; i++ {
		a := l.Addresses(i).Admin
		addrs = append(addrs, a)
		each = append(each, api.NewClient([]string{a}, api.ClientTLS(cred)))
	}
	return each, api.NewClient(addrs, api.ClientTLS(cred)), nil
}

// waitServing returns the status once every node answers and serves. Nodes that
// are all blank count as serving unless a cluster is asked for.
// What is missing is told now and then.
func waitServing(ctx context.Context, o Options, cluster bool) (api.Status, error) {
	l := o.Layout
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	each, any, err := l.clients()
	if err != nil {
		return api.Status{}, err
	}
	defer any.Close()
	for _, c := range each {
		defer c.Close()
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	why, told := "the nodes have not answered yet", time.Now()
	for {
		st, missing := poll(ctx, each, cluster)
		if missing == "" {
			return st, nil
		}
		if ctx.Err() == nil {
			why = missing
			if time.Since(told) > tellEvery {
				told = time.Now()
				o.Say("waiting: %s", why)
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return api.Status{}, ctx.Err()
			}
			return api.Status{}, &Error{fmt.Sprintf("the cluster does not serve after %v: %s", startLimit, why), "see " + l.path("node*.log")}
		case <-tick.C:
		}
	}
}

// poll asks every node, and says what is missing.
func poll(ctx context.Context, each []*api.Client, cluster bool) (api.Status, string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var last api.Status
	blank := 0
	for i, c := range each {
		st, err := c.Status(ctx)
		if err != nil {
			return last, fmt.Sprintf("node%d: %v", i+1, err)
		}
		if st.Cluster == "" {
			blank++
			continue
		}
		if m := notServing(st); m != "" {
			return last, fmt.Sprintf("node%d says: %s", i+1, m)
		}
		last = st
	}
	switch {
	case blank == 0, blank == len(each) && !cluster:
		return last, ""
	case blank == len(each):
		return last, "the nodes are no cluster yet"
	}
	return last, fmt.Sprintf("%d of the nodes have not heard of the cluster", blank)
}

// notServing names what keeps the cluster from serving, as one node sees it.
func notServing(st api.Status) string {
	master := false
	for _, m := range st.Members {
		master = master || m.Master
		if m.State != api.StateMaster && m.State != api.StateFollower {
			why := ""
			if len(m.Problems) > 0 {
				why = ": " + m.Problems[0].Reason
			}
			return fmt.Sprintf("%s is %s%s", m.Name, m.State, why)
		}
	}
	if !master {
		return "there is no master"
	}
	return ""
}

// initialise makes the cluster and the account, and writes the password where
// only this user can read it. The password is written first: if the answer is
// lost, it is still known.
func initialise(ctx context.Context, l Layout) error {
	password := rand.Text()
	if err := l.writeClient(password); err != nil {
		return err
	}
	_, any, err := l.clients()
	if err != nil {
		return err
	}
	defer any.Close()
	req := api.InitRequest{User: clientUser, Password: password}
	for i := 1; i <= l.Nodes; i++ {
		req.Members = append(req.Members, api.InitMember{ID: l.IDs()[i-1], Peer: l.Addresses(i).Peer})
	}
	if _, err := any.Init(ctx, req); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	return nil
}

func (l Layout) writeClient(password string) error {
	_, port, err := net.SplitHostPort(l.Addresses(1).RW)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("[client]\nhost = 127.0.0.1\nport = %s\nuser = %s\npassword = %s\n", port, clientUser, password)
	if err := os.WriteFile(l.ClientPath(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write client option file: %w", err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s --defaults-file=%s \"$@\"\n", quote(l.path("mysql-client")), quote(l.ClientPath()))
	if err := os.WriteFile(l.MySQLPath(), []byte(script), 0o700); err != nil {
		return fmt.Errorf("write client script: %w", err)
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Exists reports whether a demo is in the folder.
func Exists(dir string) bool {
	_, err := Load(dir)
	return !errors.Is(err, fs.ErrNotExist)
}
