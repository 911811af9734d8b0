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

	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/drill"
)

// exitNotRun says that a drill could not be run or judged.
const exitNotRun = 2

// drillOptions are the flags of the drill.
type drillOptions struct {
	seed      uint64
	faults    int
	rate      int
	large     config.Size
	lasting   time.Duration
	each      int
	nodes     int
	dir       string
	workloads []string
	kinds     []string
	loopback  bool
	target    string
	confirmed bool
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
	cmd := group("drill", "Break a cluster on purpose, under load, and judge what it kept", list, soakCommand(io), controlCommand(io))
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
		if o.target != "" {
			return judged(io, runStage(cmd.Context(), o, io))
		}
		return judged(io, runDrill(cmd.Context(), o, io))
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.IntVar(&o.faults, "faults", 0, fmt.Sprintf("number of faults (default %d, if --for is not given)", drill.DefaultRun))
	f.DurationVar(&o.lasting, "for", 0, "break the cluster for so long, such as 10m")
	f.IntVar(&o.each, "each", 0, "each kind of fault so many times, one after the other")
	cmd.MarkFlagsMutuallyExclusive("each", "faults")
	cmd.MarkFlagsMutuallyExclusive("each", "for")
	f.StringVar(&o.dir, "dir", "", "folder of the report (default ./drill-SEED)")
	f.StringVar(&o.target, "target", "", "drill the running cluster that this file describes, by the commands in it")
	f.BoolVar(&o.confirmed, "break-this-cluster", false, "with --target: yes, do it")
	for _, own := range []string{"nodes", "loopback", "each", "faults-of"} {
		cmd.MarkFlagsMutuallyExclusive("target", own)
	}
	f.BoolVar(&o.keep, "keep", false, "keep the nodes' data also when every promise was kept")
	return cmd
}

// judged gives an error the exit code of a drill that could not be run or judged.
func judged(io stdio, err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(io.err, "interrupted before the first fault; nothing was judged")
		return &exitError{exitNotRun}
	}
	printError(io.err, err)
	return &exitError{exitNotRun}
}

// flags are those that a drill and a soak have.
func (o *drillOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 0, "seed of the schedule (default: a new one)")
	f.IntVar(&o.nodes, "nodes", 3, "number of nodes: 3 or 5")
	f.IntVar(&o.rate, "rate", drill.DefaultRate, "operations per second of all clients together; 0 for as many as they can")
	f.TextVar(&o.large, "large", config.Size(drill.DefaultLarge), "size of the largest transactions of the workload large, up to "+config.Size(drill.LargestTransaction).String())
	f.StringSliceVar(&o.workloads, "workloads", nil, "only these workloads, see 'phxsql drill list' (default all)")
	f.StringSliceVar(&o.kinds, "faults-of", nil, "only these faults or families of faults, see 'phxsql drill list' (default all)")
	f.BoolVar(&o.loopback, "loopback", false, "use no networks of its own, even as root")
}

func soakCommand(io stdio) *cobra.Command {
	var o drillOptions
	var chunk int
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Run drills until so many faults are done, each some of them on a fresh cluster",
		Long: `Run drills one after the other, each on a fresh cluster and with a seed one higher,
until so many faults are done. It stops when a promise is broken, and when --for is
over. A later call with the same --dir goes on where the last one stopped; after a
broken promise that is the next cluster.

Unless --faults-of is given, every second cluster is on ordinary disks and bears no
faults of disks: disks that can be broken cost as much time as everything else.

An interrupt ends the fault that is on its way. The cluster must be well again, and what
was done is judged and counts; if it is not well, all of it is kept. A second interrupt
ends at once. Several soaks can run side by side, each with a --dir and a --seed.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return judged(io, runSoak(cmd.Context(), o, chunk, io)) },
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.IntVar(&o.faults, "faults", 1000, "number of faults, over all calls")
	f.IntVar(&chunk, "chunk", 50, "number of faults on one cluster")
	f.DurationVar(&o.lasting, "for", 0, "start no further cluster after so long (default: no limit)")
	f.StringVar(&o.dir, "dir", ".soak", "folder of the state and of the reports")
	return cmd
}

func runSoak(ctx context.Context, o drillOptions, chunk int, io stdio) error {
	if chunk < 1 {
		return &usageError{fmt.Sprintf("--chunk is %d", chunk), "use 1 or more"}
	}
	first, err := o.plan(io) // what is wrong with it is wrong with each
	if err != nil {
		return err
	}
	soak := drill.Soak{
		Dir: o.dir, Faults: o.faults, Chunk: chunk, For: o.lasting, Say: first.Cluster.Say,
		Plan: func(seed uint64, faults int) (drill.Plan, error) {
			one := o
			one.seed, one.faults, one.lasting = seed, faults, 0
			if len(o.kinds) == 0 && seed%2 == 1 {
				one.kinds = drill.FamiliesWithoutDisks()
			}
			p, err := one.plan(io)
			if err != nil {
				return p, err
			}
			p.Cluster.Dir, err = os.MkdirTemp("", "phxdrill")
			return p, err
		},
	}
	st, err := soak.Run(ctx, o.seed)
	if err != nil {
		return err
	}
	fmt.Fprintf(io.out, "\n%sreports: %s\n", st, o.dir)
	switch {
	case !st.OK():
		return &exitError{exitFailed}
	case ctx.Err() != nil:
		fmt.Fprintf(io.out, "interrupted after %d of %d faults; the same command goes on\n", st.Done, o.faults)
		return &exitError{exitNotRun}
	}
	return nil
}

func controlCommand(io stdio) *cobra.Command {
	var workloads []string
	var lasting time.Duration
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Put the same load on one plain MySQL server, to see what MySQL itself does",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return judged(io, runControl(cmd.Context(), workloads, lasting, io))
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&workloads, "workloads", nil, "only these workloads (default all)")
	f.DurationVar(&lasting, "for", 20*time.Second, "how long")
	return cmd
}

func runControl(ctx context.Context, workloads []string, lasting time.Duration, io stdio) error {
	loads, err := drill.FindLoads(workloads)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "phxcontrol")
	if err != nil {
		return fmt.Errorf("make folder of server: %w", err)
	}
	defer os.RemoveAll(dir)
	found, err := drill.Control(ctx, dir, loads, lasting)
	if err != nil {
		return err
	}
	ok := true
	for _, f := range found {
		fmt.Fprint(io.out, f)
		ok = ok && len(f.Wrong) == 0
	}
	if !ok {
		return &exitError{exitFailed}
	}
	return nil
}

func listDrill(io stdio) error {
	t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FAULT\tFAMILY\tWHAT IT DOES")
	for _, k := range drill.Kinds {
		text := k.Make(rand.New(rand.NewPCG(1, 1))).Name
		if k.Beyond != "" {
			text += " (only if asked for: it is assumed that " + k.Beyond + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", k.Name, k.Family, text)
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
	if o.target != "" {
		c = fmt.Sprintf("phxsql drill --seed %d --target %s --break-this-cluster", o.seed, o.target)
	}
	if o.faults > 0 {
		c += fmt.Sprintf(" --faults %d", o.faults)
	}
	if o.each > 0 {
		c += fmt.Sprintf(" --each %d", o.each)
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
	if o.rate != drill.DefaultRate {
		c += fmt.Sprintf(" --rate %d", o.rate)
	}
	if o.large != drill.DefaultLarge {
		c += " --large " + o.large.String()
	}
	if o.loopback && o.target == "" {
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
	if o.large < 1<<20 || o.large > drill.LargestTransaction {
		return p, &usageError{fmt.Sprintf("--large is %s", o.large), "use 1MiB to " + config.Size(drill.LargestTransaction).String()}
	}
	if o.faults < 0 || o.lasting < 0 || o.each < 0 {
		return p, &usageError{"--faults, --for or --each is negative", "leave it out"}
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
		Seed: o.seed, Faults: o.faults, For: o.lasting, Each: o.each, Rate: o.rate, Large: int64(o.large), Loads: loads, Kinds: kinds,
		Out: o.dir, Command: o.command(), Cluster: options,
	}, nil
}

// runStage drills a cluster that runs already.
func runStage(ctx context.Context, o drillOptions, io stdio) error {
	stage, err := drill.LoadStage(o.target)
	if err != nil {
		return err
	}
	if !o.confirmed {
		fmt.Fprintf(io.out, "This would be done to a cluster that runs:\n\n%s\n", stage)
		return &usageError{"nothing was done: the cluster of " + o.target + " is not the drill's own", "if it may be broken, say so with --break-this-cluster"}
	}
	o.loopback = true // no networks of its own
	p, err := o.plan(io)
	if err != nil {
		return err
	}
	if len(o.workloads) == 0 {
		p.Loads = drill.LoadsForStages()
	}
	fmt.Fprintf(io.out, "seed %d\n", o.seed)
	v, err := drill.RunStage(ctx, p, stage)
	if len(v.Bouts) > 0 {
		fmt.Fprintf(io.out, "\n%sreport: %s\n", v, filepath.Join(o.dir, "report.html"))
	}
	if err != nil && !v.Broke() {
		return err
	} else if err != nil {
		printError(io.err, err)
	}
	return told(v, io)
}

// told makes the exit code of a verdict.
func told(v *drill.Verdict, io stdio) error {
	switch {
	case !v.OK:
		return &exitError{exitFailed}
	case v.Interrupted:
		fmt.Fprintln(io.out, "interrupted; what was done by then was judged")
		return &exitError{exitNotRun}
	}
	return nil
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
	if ctx.Err() != nil && len(v.Bouts) == 0 {
		return errors.Join(ctx.Err(), os.RemoveAll(p.Cluster.Dir))
	}
	if len(v.Bouts) > 0 {
		fmt.Fprintf(io.out, "\n%sreport: %s\n", v, filepath.Join(o.dir, "report.html"))
	}
	if err != nil && !v.Broke() {
		return fmt.Errorf("%w\nthe nodes' files are in %s", err, p.Cluster.Dir)
	} else if err != nil {
		printError(io.err, err)
	}
	if !v.OK || o.keep {
		fmt.Fprintf(io.out, "the nodes' files are in %s\n", p.Cluster.Dir)
	} else if err := os.RemoveAll(p.Cluster.Dir); err != nil {
		return fmt.Errorf("remove the nodes' files: %w", err)
	}
	if !v.OK {
		fmt.Fprintf(io.out, "to repeat: %s\n", p.Command)
	}
	return told(v, io)
}
