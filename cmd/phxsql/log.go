package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

type dumpOptions struct {
	target
	from, to uint64
	dir      string
	output   string
}

func logCommand(io stdio) *cobra.Command {
	var o dumpOptions
	dump := &cobra.Command{
		Use:   "dump",
		Short: "Print the replicated log: one line for each entry, with its transactions",
		Long: `Print the replicated log: one line for each entry, with its transactions. Instances
are counted from 1. A value that is void was written by a deposed master: it does
not count.

The entries come from a running node, or with --dir from the files in a data
directory. That works on a stopped node and on a damaged log too, changes nothing, and
prints the entries in the order in which they were written, with what is damaged.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(o.output); err != nil {
				return err
			}
			if o.to != 0 && o.from > o.to {
				return &usageError{fmt.Sprintf("--from %d is after --to %d", o.from, o.to), ""}
			}
			w := bufio.NewWriter(io.out)
			err := o.dump(cmd, entryPrinter(w, o.output))
			if ferr := w.Flush(); err == nil {
				err = ferr
			}
			return err
		},
	}
	o.flags(dump)
	outputFlag(dump, &o.output)
	dump.Flags().Uint64Var(&o.from, "from", 0, "first instance; without it the oldest kept")
	dump.Flags().Uint64Var(&o.to, "to", 0, "last instance; without it the newest chosen")
	dump.Flags().StringVar(&o.dir, "dir", "", "data directory (node.data_dir) to read the files of")
	return group("log", "Look into the replicated log", dump)
}

func (o *dumpOptions) dump(cmd *cobra.Command, f func(api.LogEntry) error) error {
	from, to := paxos.Instance(o.from), paxos.Instance(o.to)
	if o.dir != "" {
		return dumpDir(o.dir, from, to, f)
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.LogDump(cmd.Context(), from, to, f)
}

// entryPrinter writes a line for each entry.
func entryPrinter(w io.Writer, output string) func(api.LogEntry) error {
	if output == "json" {
		enc := json.NewEncoder(w)
		return func(e api.LogEntry) error { return enc.Encode(e) }
	}
	return func(e api.LogEntry) error {
		_, err := fmt.Fprintln(w, entryLine(e))
		return err
	}
}

// maxListed is how many transactions of one entry a line names.
const maxListed = 4

func entryLine(e api.LogEntry) string {
	parts := []string{fmt.Sprintf("%8d  %-8s %-12s", e.Instance, e.Ballot, e.Kind)}
	if e.Epoch > 0 {
		parts = append(parts, fmt.Sprintf("epoch=%d node=%d", e.Epoch, e.Node))
	}
	if e.Void != nil && *e.Void {
		parts = append(parts, "VOID")
	}
	if e.ServerUUID != "" {
		parts = append(parts, "server="+e.ServerUUID)
	}
	if e.Bytes > 0 {
		parts = append(parts, fmt.Sprintf("%dB", e.Bytes))
	}
	if e.Last {
		parts = append(parts, "last")
	}
	if n := len(e.Transactions); n > 0 {
		var names []string
		for _, t := range e.Transactions[:min(n, maxListed)] {
			names = append(names, t.GTID)
		}
		if n > maxListed {
			names = append(names, fmt.Sprintf("and %d more, up to %s", n-maxListed, e.Transactions[n-1].GTID))
		}
		parts = append(parts, strings.Join(names, ","))
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	return strings.TrimRight(strings.Join(parts, "  "), " ")
}
