package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/agent"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/telemetry"
)

func serverCommand(io stdio) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "server --config FILE",
		Short: "Run a node, until SIGTERM or Ctrl-C",
		Long: `Run a node, until SIGTERM or Ctrl-C. Everything that is wrong with its configuration
or its machine is reported at once, before anything is touched. The log goes to
standard error.

A node that belongs to no cluster waits for 'phxsql init'.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return &usageError{"no configuration is named", "phxsql server --config node.toml; 'phxsql config sample' prints one"}
			}
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), path, cfg, io)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the node's configuration")
	return cmd
}

// serve runs a node until ctx ends. When the node was asked to restart, it does not
// return: the program, as it lies on the disk then, takes the place of this process.
func serve(ctx context.Context, path string, cfg config.Config, io stdio) error {
	events := telemetry.NewEvents(telemetry.DefaultEvents)
	log, err := telemetry.NewLogger(io.err, telemetry.LogOptions{Level: cfg.Logging.Level, Format: cfg.Logging.Format, Events: events})
	if err != nil {
		return err
	}
	self, err := findSelf(path)
	if err != nil {
		return err
	}
	err = agent.Run(ctx, cfg, agent.Options{
		Logger: log, Events: events, Registry: telemetry.NewRegistry(buildVersion()), Restart: self.check,
		Ready: func() {
			log.Info("node started", telemetry.KeyNode, uint64(cfg.Node.ID), telemetry.KeyVersion, buildVersion(), telemetry.KeyDir, cfg.Node.DataDir)
		},
	})
	if errors.Is(err, agent.ErrRestart) {
		return self.replace()
	}
	if err != nil {
		return fmt.Errorf("run node %d: %w", cfg.Node.ID, err)
	}
	return nil
}
