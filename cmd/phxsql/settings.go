package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
)

// settingsCommands are those of "config" that speak to the cluster.
func settingsCommands(io stdio) []*cobra.Command {
	return []*cobra.Command{configShowCommand(io), configSetCommand(io), configUnsetCommand(io), configHistoryCommand(io)}
}

// asked is a command that asks a node one thing and prints the answer.
func asked[T any](cmd *cobra.Command, out io.Writer, ask func(ctx context.Context, c *api.Client, args []string) (T, error), text func(io.Writer, T) error) *cobra.Command {
	var t target
	var output string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(output); err != nil {
			return err
		}
		c, err := t.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		res, err := ask(cmd.Context(), c, args)
		if err != nil {
			return err
		}
		if output == "json" {
			return printJSON(out, res)
		}
		return text(out, res)
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func configShowCommand(io stdio) *cobra.Command {
	return asked(&cobra.Command{
		Use:   "show",
		Short: "Show the settings that may be changed for all members at once",
		Long: `Show the settings that may be changed for all members at once, as the node that answers
works by them. FROM says where a value comes from: "cluster" is set for all members and
counts instead of what a member's file says; "file" is that node's own file.`,
		Args: noArgs,
	}, io.out, func(ctx context.Context, c *api.Client, _ []string) (api.SettingsResult, error) {
		return c.Settings(ctx)
	}, renderSettings)
}

func configSetCommand(io stdio) *cobra.Command {
	return asked(&cobra.Command{
		Use:   "set KEY VALUE [KEY VALUE]... | KEY=VALUE...",
		Short: "Change settings for all members, while they run",
		Long: `Change settings for all members, while they run. The change goes through the replicated
log: it is checked first, and either all of it is made or nothing; every member works by it
when its log has come so far, also one that was down or joins later. What is set counts
instead of what the members' files say. 'phxsql config show' lists the keys.`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := settingPairs(args)
			return err
		},
	}, io.out, func(ctx context.Context, c *api.Client, args []string) (api.SettingsResult, error) {
		set, err := settingPairs(args)
		if err != nil {
			return api.SettingsResult{}, err
		}
		return c.ChangeSettings(ctx, api.SettingsRequest{Set: set, By: whoAsks()})
	}, renderSettings)
}

// settingPairs reads KEY VALUE pairs, or KEY=VALUE. No key holds an equals sign.
func settingPairs(args []string) (map[string]string, error) {
	if len(args) > 0 && strings.Contains(args[0], "=") {
		var pairs []string
		for _, arg := range args {
			key, value, ok := strings.Cut(arg, "=")
			if !ok {
				return nil, &usageError{fmt.Sprintf("%q is not KEY=VALUE", arg), "either all settings are KEY=VALUE, or all are KEY VALUE"}
			}
			pairs = append(pairs, key, value)
		}
		args = pairs
	}
	if len(args) == 0 || len(args)%2 != 0 {
		return nil, &usageError{"config set takes pairs of a key and a value", "such as: phxsql config set log.limit 16GiB"}
	}
	set := map[string]string{}
	for i := 0; i < len(args); i += 2 {
		if _, twice := set[args[i]]; twice {
			return nil, &usageError{args[i] + " is given twice", ""}
		}
		set[args[i]] = args[i+1]
	}
	return set, nil
}

func configUnsetCommand(io stdio) *cobra.Command {
	return asked(&cobra.Command{
		Use:   "unset KEY...",
		Short: "Leave settings to each member's own file again",
		Args:  cobra.MinimumNArgs(1),
	}, io.out, func(ctx context.Context, c *api.Client, args []string) (api.SettingsResult, error) {
		return c.ChangeSettings(ctx, api.SettingsRequest{Unset: args, By: whoAsks()})
	}, renderSettings)
}

func configHistoryCommand(io stdio) *cobra.Command {
	return asked(&cobra.Command{
		Use: "history", Short: "Show who changed which settings, and when", Args: noArgs,
	}, io.out, func(ctx context.Context, c *api.Client, _ []string) (api.SettingsHistory, error) {
		return c.SettingsHistory(ctx)
	}, renderHistory)
}

// whoAsks names the user of this command for the history. It proves nothing: who may
// ask at all has the cluster's secret.
func whoAsks() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name[:min(len(name), 200)]
}

func renderSettings(w io.Writer, res api.SettingsResult) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "KEY\tVALUE\tDEFAULT\tFROM\tCHANGED\tBY")
	for _, s := range res.Settings {
		changed := "-"
		if s.Changed != nil {
			changed = s.Changed.Local().Format(time.DateTime)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Key, s.Value, s.Default, s.From, changed, orDash(s.By))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, s := range res.Settings {
		if s.File != "" {
			fmt.Fprintf(w, "\n%s: the file of this node says %s, which does not count\n", s.Key, s.File)
		}
	}
	if len(res.Waiting) > 0 {
		fmt.Fprintf(w, "\nnot yet confirmed by member %s\n", strings.Trim(fmt.Sprint(res.Waiting), "[]"))
	}
	return nil
}

func renderHistory(w io.Writer, res api.SettingsHistory) error {
	if len(res.Changes) == 0 {
		_, err := fmt.Fprintln(w, "nothing was ever changed")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CHANGED\tINSTANCE\tBY\tCHANGE")
	for _, c := range res.Changes {
		var what []string
		for key, v := range c.Set {
			what = append(what, key+" = "+v)
		}
		for _, key := range c.Unset {
			what = append(what, key+" unset")
		}
		slices.Sort(what)
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\n", c.Time.Local().Format(time.DateTime), c.Instance, orDash(c.By), strings.Join(what, ", "))
	}
	return tw.Flush()
}
