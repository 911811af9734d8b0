package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func switchoverCommand(io stdio) *cobra.Command {
	var t target
	var to, output string
	cmd := &cobra.Command{
		Use:   "switchover [--to NODE]",
		Short: "Make another member the master, without losing a session's work",
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
			res, err := c.Switchover(cmd.Context(), to)
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(io.out, res)
			}
			who := to
			if st, err := c.Status(cmd.Context()); err == nil {
				for _, m := range st.Members {
					if isMaster(st, m) {
						who = memberName(m)
					}
				}
			}
			fmt.Fprintf(io.out, "the master is %s (took %v)\n", orDash(who), time.Duration(res.Took).Round(time.Millisecond))
			return nil
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&to, "to", "", "name or id of the new master; without it the cluster chooses")
	return cmd
}
