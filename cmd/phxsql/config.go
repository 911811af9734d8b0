package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/config"
)

func configCommand(io stdio) *cobra.Command {
	sample := &cobra.Command{
		Use:   "sample",
		Short: "Print a commented configuration with every key at its default",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(io.out, config.Sample)
			return err
		},
	}
	var running bool
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Report everything that is wrong with a configuration, and change nothing",
		Args:  oneArg,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Load(args[0])
			if err != nil {
				return err
			}
			look := c.CheckMachine
			if running {
				look = c.CheckFiles
			}
			if err := look(); err != nil {
				return fmt.Errorf("check this machine for %s: %w", args[0], err)
			}
			fmt.Fprintf(io.out, "%s: fine\n", args[0])
			return nil
		},
	}
	check.Flags().BoolVar(&running, "running", false, "the node is running: do not ask for free ports")
	return group("config", "Show and change settings of the cluster; print a sample of a node's file, or check one",
		append(settingsCommands(io), sample, check)...)
}
