package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
)

type statusOptions struct {
	target
	output   string
	watch    bool
	interval time.Duration
	exitCode bool
}

func statusCommand(io stdio) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the members, who is master, the log, and whatever is not well",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(o.output); err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			if o.watch {
				return watchStatus(cmd.Context(), c, o, io.out)
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := printStatus(io.out, st, o.output); err != nil {
				return err
			}
			if o.exitCode && !isWell(st) {
				return &exitError{exitNotWell}
			}
			return nil
		},
	}
	o.flags(cmd)
	outputFlag(cmd, &o.output)
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "show it again and again, until Ctrl-C")
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "with --watch: how often")
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "exit with 4 if something is not well")
	return cmd
}

func printStatus(w io.Writer, st api.Status, output string) error {
	if output == "json" {
		return printJSON(w, st)
	}
	renderStatus(w, st)
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// clearScreen moves the cursor home and erases what follows.
const clearScreen = "\x1b[H\x1b[J"

// watchStatus shows the status until ctx ends. A node that does not answer is
// shown as an error and asked again.
func watchStatus(ctx context.Context, c *api.Client, o statusOptions, w io.Writer) error {
	if o.interval < 100*time.Millisecond {
		return &usageError{fmt.Sprintf("--interval is %v", o.interval), "use at least 100ms"}
	}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	terminal := isTerminal(w)
	for {
		st, err := c.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if terminal {
			fmt.Fprint(w, clearScreen)
		}
		if o.output != "json" {
			fmt.Fprintln(w, time.Now().Format("15:04:05"))
		}
		if err != nil {
			printError(w, err)
		} else if err := printStatus(w, st, o.output); err != nil {
			return err
		}
		if !terminal && o.output != "json" {
			fmt.Fprintln(w)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}
