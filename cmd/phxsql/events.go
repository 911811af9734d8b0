package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/telemetry"
)

func eventsCommand(io stdio) *cobra.Command {
	var t target
	var output string
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened on a node lately",
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
			var after uint64
			var wait time.Duration
			for {
				res, err := c.Events(cmd.Context(), after, wait)
				if err != nil {
					if follow && cmd.Context().Err() != nil {
						return nil
					}
					return err
				}
				for _, e := range res.Events {
					if err := printEvent(io.out, e, output); err != nil {
						return err
					}
				}
				if !follow {
					return nil
				}
				after, wait = res.Last, 30*time.Second
			}
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on, until Ctrl-C")
	return cmd
}

// printEvent writes one event: a line for people, or a JSON object a line.
func printEvent(w io.Writer, e telemetry.Event, output string) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(e)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-5s  %s", e.Time.Format("2006-01-02 15:04:05.000"), e.Level, e.Message)
	for _, a := range e.Attrs {
		fmt.Fprintf(&b, "  %s=%s", a.Key, a.Value)
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}
