package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/demo"
)

// demoStop is how long 'demo stop' waits.
const demoStop = 60 * time.Second

type demoOptions struct {
	dir        string
	nodes      int
	basePort   int
	background bool
	runner     bool
}

func demoCommand(io stdio) *cobra.Command {
	var o demoOptions
	cmd := group("demo", "Run a whole cluster on this machine, to try it out", &cobra.Command{
		Use:   "stop",
		Short: "Stop a demo that runs in the background; its data stays",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			was, err := stopDemo(cmd.Context(), o.dir)
			if err != nil {
				return err
			}
			if was {
				fmt.Fprintf(io.out, "the demo in %s is stopped; 'phxsql demo' starts it again with its data\n", o.dir)
			} else {
				fmt.Fprintf(io.out, "no demo is running in %s\n", o.dir)
			}
			return nil
		},
	}, &cobra.Command{
		Use:   "clean",
		Short: "Stop a demo and remove it with all of its data",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !demo.Exists(o.dir) {
				fmt.Fprintf(io.out, "no demo is in %s\n", o.dir)
				return nil
			}
			if _, err := stopDemo(cmd.Context(), o.dir); err != nil {
				return err
			}
			if err := demo.Clean(o.dir); err != nil {
				return err
			}
			fmt.Fprintf(io.out, "%s is removed\n", o.dir)
			return nil
		},
	})
	cmd.Long = `Run a whole cluster on this machine: each node is a process of its own with its own
mysqld, log and ports, on loopback. The first start finds an engine or fetches one
into a private folder, and makes the cluster; a later one goes on with the data.
A node that dies is started again after two seconds, so one can kill a node and
watch it come back.

Node i has the ports BASE+10*i+6 (read-write), +7 (read-only), +8 (peers) and +9
(admin API): with the default base 6100, node 1 has 6116 to 6119. Several demos run
side by side with --dir and --base-port of their own.`
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), o, io) }
	cmd.PersistentFlags().StringVar(&o.dir, "dir", ".demo", "folder of the demo")
	f := cmd.Flags()
	f.IntVar(&o.nodes, "nodes", 0, fmt.Sprintf("number of nodes (default %d)", demo.DefaultNodes))
	f.IntVar(&o.basePort, "base-port", 0, fmt.Sprintf("where the ports begin (default %d)", demo.DefaultBasePort))
	f.BoolVar(&o.background, "background", false, "return when the cluster serves, and leave it running")
	f.BoolVar(&o.runner, "runner", false, "be the process that runs the nodes in the background")
	_ = f.MarkHidden("runner")
	return cmd
}

func stopDemo(ctx context.Context, dir string) (bool, error) {
	if !demo.Exists(dir) {
		return false, nil
	}
	l, err := demo.Load(dir)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, demoStop)
	defer cancel()
	return l.Stop(ctx)
}

func runDemo(ctx context.Context, o demoOptions, io stdio) error {
	l, err := demo.Open(o.dir, o.nodes, o.basePort)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	opts := demo.Options{
		Layout: l, Program: program,
		Say: func(format string, args ...any) {
			fmt.Fprintf(io.out, time.Now().Format("15:04:05 ")+format+"\n", args...)
		},
		Ready: func(st api.Status) { greet(io.out, o, l, st) },
	}
	if o.background {
		return demo.Detach(ctx, opts, []string{"demo", "--runner", "--dir", l.Dir,
			"--nodes", fmt.Sprint(l.Nodes), "--base-port", fmt.Sprint(l.BasePort)})
	}
	if o.runner {
		opts.Ready = func(api.Status) { opts.Say("the cluster serves") }
	}
	return demo.Run(ctx, opts)
}

// greet tells what runs, how to connect, and what to try.
func greet(w io.Writer, o demoOptions, l demo.Layout, st api.Status) {
	me, dir := shown(os.Args[0]), relative(l.Dir)
	at := "" // how commands find this demo
	if dir != "./.demo" {
		at = " --config " + dir
	}
	fmt.Fprintf(w, "\nThe cluster serves: %d nodes on this machine.\n\n", l.Nodes)
	master, other := members(w, l, st)
	pid, _ := l.PID(master) // 0 if it has just died
	fmt.Fprintf(w, `
Connect with MySQL through any node's read-write port, whoever is master:
  %[1]s
  %[1]s -P %[2]d
Any other client: 127.0.0.1, a read-write port, user and password from %[3]s.

`, join(dir, "mysql"), l.RWPort(other), join(dir, "client.cnf"))
	fmt.Fprintln(w, "Try next, in another terminal:")
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	try := func(command, what string) { fmt.Fprintf(t, "  %s\t%s\n", command, what) }
	try(me+" status --watch"+at, "watch the cluster")
	try(fmt.Sprintf("kill -9 %d", pid), "kill the master, its mysqld with it: another node takes over;")
	try("", "after 2 s this demo starts the dead one again, and it catches up")
	try(fmt.Sprintf("%s switchover --to node%d%s", me, other, at), "move the master on purpose")
	try(me+" log dump"+at, "see every transaction in the replicated log")
	_ = t.Flush()
	if o.background {
		fmt.Fprintf(w, "\nIt runs in the background. To stop it:  %s demo stop --dir %s\nTo remove it, data and all:             %s demo clean --dir %s\n", me, dir, me, dir)
		return
	}
	fmt.Fprintf(w, "\nCtrl-C stops all nodes; the data stays in %s. Logs: %s\n\n", dir, join(dir, "node*.log"))
}

// members writes the table of the nodes, and returns the master and one other.
func members(w io.Writer, l demo.Layout, st api.Status) (master, other int) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tREAD-WRITE\tREAD-ONLY\tADMIN\tPROCESS")
	master, other = 1, 1
	for _, m := range st.Members {
		if m.Master {
			master = int(m.ID)
		} else {
			other = int(m.ID)
		}
	}
	for _, m := range st.Members {
		a := l.Addresses(int(m.ID))
		pid, _ := l.PID(int(m.ID)) // 0 if it has just died
		fmt.Fprintf(t, "node%d\t%s\t%s\t%s\t%s\t%d\n", m.ID, m.State, a.RW, a.RO, a.Admin, pid)
	}
	_ = t.Flush()
	return master, other
}

// shown is how the user can call this program again.
func shown(arg0 string) string {
	if strings.ContainsRune(arg0, '/') {
		return relative(arg0)
	}
	return arg0
}

// relative shortens a path below the working directory.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(wd, abs)
	if err != nil || strings.HasPrefix(rel, "..") {
		return abs
	}
	return "./" + rel
}

func join(dir, name string) string {
	p := filepath.Join(dir, name)
	if filepath.IsAbs(p) {
		return p
	}
	return "./" + p
}
