package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/drill"
)

// exitNotRun says that a drill could not be run or judged.
const exitNotRun = 2

// drillOptions are the flags of the drill.
type drillOptions struct {
	seed      uint64
	faults    int
	lasting   time.Duration
	nodes     int
	dir       string
	workloads []string
	kinds     []string
	loopback  bool
	keep      bool
}

func drillCommand(io stdio) *cobra.Command {
	var o drillOptions
	list := &cobra.Command{
		Use:   "list",
		Short: "List the faults and the workloads that there are",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return listDrill(io) },
	}
	cmd := group("drill", "Break a cluster on purpose, under load, and judge what it kept", list)
	cmd.Long = `Start a cluster of its own on this machine, put load on it through the client ports,
break it again and again by a schedule drawn from a seed, and judge what clients were
told against what every node holds. It touches no other cluster.

As root each node gets a network of its own, so that nodes can be cut off from each
other. Otherwise all run on loopback, without the faults that cut networks.

The report goes to a folder: report.html, verdict.json, every operation, each node's
log. Exit codes: 0 every promise was kept; 1 one was broken; 2 the drill could not be
run or judged.`
	cmd.Example = `  phxsql drill
  phxsql drill --seed 7 --faults 50
  phxsql drill --for 10m --nodes 5 --faults-of partition,kill-master`
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := runDrill(cmd.Context(), o, io)
		var exit *exitError
		if err != nil && !errors.As(err, &exit) {
			printError(io.err, err)
			return &exitError{exitNotRun}
		}
		return err
	}
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 0, "seed of the schedule (default: a new one)")
	f.IntVar(&o.faults, "faults", 0, fmt.Sprintf("number of faults (default %d, if --for is not given)", drill.DefaultRun))
	f.DurationVar(&o.lasting, "for", 0, "break the cluster for so long, such as 10m")
	f.IntVar(&o.nodes, "nodes", 3, "number of nodes: 3 or 5")
	f.StringVar(&o.dir, "dir", "", "folder of the report (default ./drill-SEED)")
	f.StringSliceVar(&o.workloads, "workloads", nil, "only these workloads, see 'phxsql drill list' (default all)")
	f.StringSliceVar(&o.kinds, "faults-of", nil, "only these faults or families of faults, see 'phxsql drill list' (default all)")
	f.BoolVar(&o.loopback, "loopback", false, "use no networks of its own, even as root")
	f.BoolVar(&o.keep, "keep", false, "keep the nodes' data also when every promise was kept")
	return cmd
}

func listDrill(io stdio) error {
	t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FAULT\tFAMILY\tWHAT IT DOES")
	for _, k := range drill.Kinds {
		fmt.Fprintf(t, "%s\t%s\t%s\n", k.Name, k.Family, k.Make(rand.New(rand.NewPCG(1, 1))).Name)
	}
	fmt.Fprintln(t, "\nWORKLOAD\t\tWHAT IT DOES")
	for _, l := range drill.Loads {
		fmt.Fprintf(t, "%s\t\t%s\n", l.Name, l.About)
	}
	return t.Flush()
}

// command is how the same drill is run again.
func (o drillOptions) command() string {
	c := fmt.Sprintf("phxsql drill --seed %d --nodes %d", o.seed, o.nodes)
	if o.faults > 0 {
		c += fmt.Sprintf(" --faults %d", o.faults)
	}
	if o.lasting > 0 {
		c += fmt.Sprintf(" --for %v", o.lasting)
	}
	if len(o.workloads) > 0 {
		c += " --workloads " + strings.Join(o.workloads, ",")
	}
	if len(o.kinds) > 0 {
		c += " --faults-of " + strings.Join(o.kinds, ",")
	}
	if o.loopback {
		c += " --loopback"
	}
	return c
}

// plan checks the flags and makes the plan of a drill.
func (o *drillOptions) plan(io stdio) (drill.Plan, error) {
	var p drill.Plan
	if o.nodes != 3 && o.nodes != 5 {
		return p, &usageError{fmt.Sprintf("--nodes is %d", o.nodes), "use 3 or 5"}
	}
	if o.faults < 0 || o.lasting < 0 {
		return p, &usageError{"--faults or --for is negative", "leave it out"}
	}
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32()) + 1
	}
	if o.dir == "" {
		o.dir = fmt.Sprintf("drill-%d", o.seed)
	}
	if !o.loopback && os.Geteuid() != 0 {
		fmt.Fprintln(io.err, "not root: all nodes run on loopback, and no fault cuts networks")
		o.loopback = true
	}
	program, err := os.Executable()
	if err != nil {
		return p, fmt.Errorf("find this program: %w", err)
	}
	options := drill.Options{Program: program, Nodes: o.nodes, Namespaces: !o.loopback, Say: func(format string, args ...any) {
		fmt.Fprintf(io.out, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}}
	kinds, err := drill.FindKinds(o.kinds, options)
	if err != nil {
		return p, err
	}
	loads, err := drill.FindLoads(o.workloads)
	if err != nil {
		return p, err
	}
	return drill.Plan{
		Seed: o.seed, Faults: o.faults, For: o.lasting, Loads: loads, Kinds: kinds,
		Out: o.dir, Command: o.command(), Cluster: options,
	}, nil
}

func runDrill(ctx context.Context, o drillOptions, io stdio) error {
	p, err := o.plan(io)
	if err != nil {
		return err
	}
	// A path of its own and short: a Unix socket's cannot be long.
	if p.Cluster.Dir, err = os.MkdirTemp("", "phxdrill"); err != nil {
		return fmt.Errorf("make folder of cluster: %w", err)
	}
	fmt.Fprintf(io.out, "seed %d; to repeat: %s\n", o.seed, p.Command)
	v, err := drill.Run(ctx, p)
	if err != nil {
		return fmt.Errorf("%w\nthe nodes' files are in %s", err, p.Cluster.Dir)
	}
	fmt.Fprintf(io.out, "\n%s", v)
	fmt.Fprintf(io.out, "report: %s\n", filepath.Join(o.dir, "report.html"))
	if !v.OK || o.keep {
		fmt.Fprintf(io.out, "the nodes' files are in %s\n", p.Cluster.Dir)
	} else if err := os.RemoveAll(p.Cluster.Dir); err != nil {
		return fmt.Errorf("remove the nodes' files: %w", err)
	}
	if !v.OK {
		fmt.Fprintf(io.out, "to repeat: %s\n", p.Command)
		return &exitError{exitFailed}
	}
	return nil
}
