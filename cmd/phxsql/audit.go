package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
)

func auditCommand(io stdio) *cobra.Command {
	return group("audit", "Compare the rows and accounts of all members", auditNowCommand(io))
}

func auditNowCommand(io stdio) *cobra.Command {
	var t target
	var output string
	cmd := &cobra.Command{
		Use:   "now",
		Short: "Compare all tables, accounts, grants, routines and triggers on all members now; exit with 4 if any differ",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			c, err := t.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			res, err := c.AuditNow(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(io.out, res)
			} else {
				fmt.Fprintf(io.out, "compared %d rows of %d tables on nodes %v in %v\n", res.Rows, res.Tables, res.Nodes, time.Duration(res.Took).Round(time.Millisecond))
				for _, s := range res.Skipped {
					fmt.Fprintf(io.out, "not compared: %s\n", s)
				}
				for _, s := range res.Advice {
					fmt.Fprintf(io.out, "look at this: %s\n  hint: %s\n", s, api.AdviceHint)
				}
				for _, d := range res.Diverged {
					fmt.Fprintf(io.out, "node %d differs in %s: %s%s\n", d.Node, strings.Join(d.Tables, ", "), d.Where,
						map[bool]string{true: " (undecided: start the members that are away)"}[d.Undecided])
				}
			}
			if err == nil && len(res.Diverged) > 0 {
				return &exitError{exitNotWell}
			}
			return err
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}
