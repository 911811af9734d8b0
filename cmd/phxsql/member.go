package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
)

func memberCommand(io stdio) *cobra.Command {
	return group("member", "List, add, replace and remove members, and change their roles",
		memberListCommand(io), memberAddCommand(io), memberReplaceCommand(io), memberRemoveCommand(io), memberRoleCommand(io))
}

func memberListCommand(io stdio) *cobra.Command {
	var t target
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List the members", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.ask(cmd.Context(), output, io.out, func(c *api.Client) (api.MembersResult, error) { return listMembers(cmd.Context(), c) })
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func listMembers(ctx context.Context, c *api.Client) (api.MembersResult, error) {
	st, err := c.Status(ctx)
	res := api.MembersResult{Cluster: st.Cluster, Members: []api.Member{}}
	for _, m := range st.Members {
		res.Members = append(res.Members, api.Member{ID: m.ID, Role: m.Role, Peer: m.PeerAddr, Name: m.Name})
	}
	return res, err
}

// ask carries out a request and prints the membership that it returns.
func (t *target) ask(_ context.Context, output string, w io.Writer, f func(*api.Client) (api.MembersResult, error)) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	c, err := t.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := f(c)
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(w, res)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tNAME\tROLE\tPEER")
	for _, m := range res.Members {
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\n", m.ID, orDash(m.Name), m.Role, m.Peer)
	}
	return tw.Flush()
}

func memberAddCommand(io stdio) *cobra.Command {
	var t target
	var output, role string
	var wait bool
	cmd := &cobra.Command{
		Use:   "add ID=HOST:PORT",
		Short: "Add a node that runs and belongs to no cluster",
		Long: `Add a node that runs, with this cluster's secret, and belongs to no cluster. It becomes
a learner at once, gets the data by itself, and takes its role when it has caught up:
'phxsql status' shows how far it is. On a machine without the secret use 'phxsql join'.`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.add(cmd.Context(), output, io, args[0], role, "", wait)
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&role, "role", "voter", "voter, witness (votes, has no data) or learner (has the data, does not vote)")
	waitFlag(cmd, &wait)
	return cmd
}

func waitFlag(cmd *cobra.Command, wait *bool) {
	cmd.Flags().BoolVar(wait, "wait", false, "say how far the new node is, on standard error, and return when it serves in its role")
}

// add has a node taken in, and waits until it has arrived if that is wanted.
func (t *target) add(ctx context.Context, output string, io stdio, member, role, replace string, wait bool) error {
	ms, err := parseMembers(member)
	if err != nil {
		return err
	}
	if len(ms) != 1 {
		return &usageError{"one member is added at a time", "write ID=HOST:PORT"}
	}
	return t.ask(ctx, output, io.out, func(c *api.Client) (api.MembersResult, error) {
		res, err := c.AddMember(ctx, api.AddRequest{ID: ms[0].ID, Peer: ms[0].Peer, Role: role, Replace: replace})
		if err != nil || !wait {
			return res, err
		}
		if err := showProgress(ctx, io.err, c, ms[0].ID, role); err != nil {
			return res, err
		}
		return listMembers(ctx, c)
	})
}

func memberReplaceCommand(io stdio) *cobra.Command {
	var t target
	var output, with, role string
	var wait bool
	cmd := &cobra.Command{
		Use:   "replace MEMBER --with ID=HOST:PORT",
		Short: "Replace a member, dead or alive, by a new node",
		Long: `Replace a member, dead or alive, by a node that runs, with this cluster's secret, and
belongs to no cluster. The new one gets the data first; then it takes the place of the
old one in one step, so that the number of voters never changes.`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if with == "" {
				return &usageError{"the new node is not named", "--with ID=HOST:PORT"}
			}
			return t.add(cmd.Context(), output, io, with, role, args[0], wait)
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&with, "with", "", "the new node, ID=HOST:PORT of its peer port")
	cmd.Flags().StringVar(&role, "role", "voter", "voter, witness or learner")
	waitFlag(cmd, &wait)
	return cmd
}

func memberRemoveCommand(io stdio) *cobra.Command {
	var t target
	var output string
	var force bool
	cmd := &cobra.Command{
		Use:   "remove MEMBER",
		Short: "Remove a member, by name or id",
		Long: `Remove a member, by name or id. If it is the master another one becomes it first. What
would leave no majority that is up is refused. The removed node's data stay; it can come
back only as a new node, with another id and an empty data directory.`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd.Context(), output, io.out, func(c *api.Client) (api.MembersResult, error) {
				return c.RemoveMember(cmd.Context(), api.RemoveRequest{Member: args[0], Force: force})
			})
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().BoolVar(&force, "force-lose-majority", false, "remove it even if those that are up are no majority of the rest: nothing can be written then")
	return cmd
}

func memberRoleCommand(io stdio) *cobra.Command {
	var t target
	var output string
	cmd := &cobra.Command{
		Use:   "role MEMBER voter|learner",
		Short: "Make a learner a voter, or a voter a learner",
		Long: `Make a learner a voter, or a voter a learner, by name or id. A learner has the data and
follows, but commits do not wait for it, and it never becomes the master. Who is to vote
must have caught up. If the master is to be a learner another one becomes it first. What
would leave no majority that is up is refused. A witness has no data: replace it.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &usageError{"member role takes a member and a role", "such as: phxsql member role node4 learner"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd.Context(), output, io.out, func(c *api.Client) (api.MembersResult, error) {
				return c.ChangeRole(cmd.Context(), api.RoleRequest{Member: args[0], Role: args[1]})
			})
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}
