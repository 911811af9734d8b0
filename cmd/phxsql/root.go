package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/config"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotWell     = 4
)

// stdio is what a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// usageError is a command line that cannot be right.
type usageError struct{ reason, hint string }

func (e *usageError) Error() string     { return e.reason }
func (e *usageError) ErrorHint() string { return e.hint }

// exitError ends the program with a code of its own and says nothing.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, io stdio) int {
	root := newRoot(io)
	root.SetArgs(append([]string{}, args...)) // not nil: that would be os.Args
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	printError(io.err, err)
	return exitCode(err)
}

func exitCode(err error) int {
	var usage *usageError
	var faults config.Faults
	var refused *api.Error
	switch {
	case errors.As(err, &usage), errors.As(err, &faults):
		return exitUsage
	case errors.As(err, &refused) && refused.Status == 0:
		return exitUnreachable
	}
	return exitFailed
}

// printError writes an error as "error: ..." and, on a line of its own, what to
// do next.
func printError(w io.Writer, err error) {
	text, hint := err.Error(), api.HintOf(err)
	if hint == "" {
		text, hint = splitHint(text)
	}
	fmt.Fprintf(w, "error: %s\n", text)
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// splitHint takes a hint in parentheses off the end of an error's text.
func splitHint(text string) (rest, hint string) {
	const mark = " (hint: "
	i := strings.LastIndex(text, mark)
	if i < 0 || !strings.HasSuffix(text, ")") {
		return text, ""
	}
	return text[:i], text[i+len(mark) : len(text)-1]
}

func newRoot(io stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   "phxsql",
		Short: "A highly available, strongly consistent MySQL cluster",
		Long: `PhxSQL makes a cluster of unmodified MySQL servers: one master takes writes, every
commit is on the disks of a majority before it returns, and the cluster elects a
new master by itself.

Try it:  phxsql demo`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(rollingRestartCommand(io), accountsCommand(io))
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err.Error(), "see '" + cmd.CommandPath() + " --help'"}
	})
	root.AddCommand(
		serverCommand(io), initCommand(io), statusCommand(io), switchoverCommand(io), joinCommand(io), memberCommand(io), tokenCommand(io), logCommand(io),
		whyCommand(io), auditCommand(io), eventsCommand(io), demoCommand(io), drillCommand(io), configCommand(io), engineCommand(io), secretCommand(io), versionCommand(io),
	)
	return root
}

// noArgs refuses arguments; it names them, and the command that may be meant.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	hint := "see '" + cmd.CommandPath() + " --help'"
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		hint = "did you mean '" + cmd.CommandPath() + " " + s[0] + "'?"
	}
	if cmd.HasSubCommands() {
		return &usageError{fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0]), hint}
	}
	return &usageError{fmt.Sprintf("%s takes no argument, such as %q", cmd.CommandPath(), args[0]), hint}
}

// oneArg refuses any other number of arguments.
func oneArg(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return &usageError{fmt.Sprintf("%s takes one argument, not %d", cmd.CommandPath(), len(args)), "usage: " + cmd.UseLine()}
}

// group is a command that only holds others.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sub...)
	return cmd
}

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVarP(to, "output", "o", "text", "text or json")
}

func checkOutput(o string) error {
	if o == "text" || o == "json" {
		return nil
	}
	return &usageError{fmt.Sprintf("-o is %q", o), "use text or json"}
}
