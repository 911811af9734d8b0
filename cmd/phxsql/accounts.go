package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
)

func accountsCommand(io stdio) *cobra.Command {
	return group("accounts", "Rotate the passwords of the agents' own accounts", accountsRotateCommand(io))
}

func accountsRotateCommand(io stdio) *cobra.Command {
	return asked(&cobra.Command{
		Use:   "rotate",
		Short: "Give the agents' accounts in their mysqlds new passwords, on all members",
		Long: `Give the agents' accounts in their mysqlds new passwords, on all members, while they run.
The rotation goes through the replicated log; the passwords do not: each node makes its own,
of a number in the log and the cluster's secret. At every moment each agent can log in. A
member that is down does it when it comes back. It may be interrupted, and repeated.

The accounts are phxsql_agent and phxsql_copy, and the one with which a mysqld replicates
from its agent. Those of clients are not touched.`,
		Args: noArgs,
	}, io.out, func(ctx context.Context, c *api.Client, _ []string) (api.RotateResult, error) {
		return c.RotateAccounts(ctx, api.RotateRequest{By: whoAsks()})
	}, renderRotation)
}

func renderRotation(w io.Writer, res api.RotateResult) error {
	fmt.Fprintf(w, "new passwords on member %s\n", orDash(strings.Trim(fmt.Sprint(res.Done), "[]")))
	if len(res.Waiting) > 0 {
		fmt.Fprintf(w, "member %s has not done it yet, and will when it is up and well\n", strings.Trim(fmt.Sprint(res.Waiting), "[]"))
	}
	return nil
}
