package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
)

func tokenCommand(std stdio) *cobra.Command {
	return group("token", "Make, list and revoke tokens for new members", tokenCreateCommand(std), tokenListCommand(std), tokenRevokeCommand(std))
}

func tokenCreateCommand(std stdio) *cobra.Command {
	var req api.TokenRequest
	var lifetime time.Duration
	cmd := asked(&cobra.Command{
		Use:   "create",
		Short: "Print a token with which one new node may join, once",
		Long: `Print a token with which one new node may join, once. Who holds it gets the cluster's
secret: treat it as a password. It is shown this one time; the members keep only what
recognises it. With --role it is for a node of that role.`,
		Args: noArgs,
	}, std.out, func(ctx context.Context, c *api.Client, _ []string) (api.TokenResult, error) {
		req.Lifetime, req.By = api.Seconds(lifetime), whoAsks()
		return c.CreateToken(ctx, req)
	}, func(w io.Writer, res api.TokenResult) error {
		fmt.Fprintln(std.err, "token "+res.ID+" lets one "+cmp.Or(res.Role, "machine")+" in, until "+res.Expires.Local().Format(time.DateTime))
		_, err := fmt.Fprintln(w, res.Token)
		return err
	})
	cmd.Flags().DurationVar(&lifetime, "lifetime", time.Hour, "how long it can be used, at most 168h")
	cmd.Flags().StringVar(&req.Role, "role", "", "what the node shall be: voter, witness or learner; left out, 'phxsql join' says it")
	return cmd
}

func tokenListCommand(std stdio) *cobra.Command {
	return asked(&cobra.Command{
		Use:   "list",
		Short: "Show the tokens, without what it takes to use them",
		Long: `Show the tokens that can be used, and for a week those that cannot any more. A token
itself is shown only when it is made.`,
		Args: noArgs,
	}, std.out, func(ctx context.Context, c *api.Client, _ []string) (api.TokenList, error) {
		return c.Tokens(ctx)
	}, renderTokens)
}

func tokenRevokeCommand(std stdio) *cobra.Command {
	return asked(&cobra.Command{
		Use:     "revoke ID",
		Short:   "Make a token void that was not used",
		Example: "  phxsql token list\n  phxsql token revoke 0a1b2c3d",
		Args:    oneArg,
	}, std.out, func(ctx context.Context, c *api.Client, args []string) (api.TokenInfo, error) {
		return c.RevokeToken(ctx, api.RevokeRequest{ID: args[0], By: whoAsks()})
	}, func(w io.Writer, t api.TokenInfo) error {
		_, err := fmt.Fprintf(w, "token %s is %s\n", t.ID, t.State)
		return err
	})
}

func renderTokens(w io.Writer, res api.TokenList) error {
	if len(res.Tokens) == 0 {
		_, err := fmt.Fprintln(w, "there are no tokens")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tROLE\tSTATE\tENDED\tUNTIL\tMADE\tBY")
	local := func(t time.Time) string { return t.Local().Format(time.DateTime) }
	for _, t := range res.Tokens {
		ended := "-"
		if t.Ended != nil {
			ended = local(*t.Ended)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, cmp.Or(t.Role, "any"), t.State, ended, local(t.Expires), local(t.Made), orDash(t.By))
	}
	return tw.Flush()
}
