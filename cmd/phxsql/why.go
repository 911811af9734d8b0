package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
)

func whyCommand(io stdio) *cobra.Command {
	var t target
	var output string
	var last int
	cmd := &cobra.Command{
		Use:   "why [--last N]",
		Short: "Show why the master changed, and what became of what it had not confirmed",
		Long: `Show the last changes of the master: who lost it when and why, how long each step
took until clients were served again, and what the old master took back, with the
proof that nothing acknowledged was among it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if last < 1 {
				return &usageError{fmt.Sprintf("--last is %d", last), "use a number from 1"}
			}
			c, err := t.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			res, err := c.Why(cmd.Context(), 0)
			if err != nil {
				return err
			}
			if len(res.Accounts) > last {
				res.Accounts = res.Accounts[len(res.Accounts)-last:]
			}
			if output == "json" {
				return printJSON(io.out, res)
			}
			printWhy(io.out, res, last)
			return nil
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().IntVar(&last, "last", 3, "how many changes of the master")
	return cmd
}

// printWhy writes the accounts, oldest first, and then the newest of what else
// happened.
func printWhy(w io.Writer, res api.WhyResult, last int) {
	if len(res.Accounts) == 0 && len(res.Beside) == 0 {
		fmt.Fprintln(w, "nothing has happened yet")
		return
	}
	for i := range res.Accounts {
		fmt.Fprint(w, res.Accounts[i].Text())
	}
	beside := res.Beside
	if n := 5 * last; len(beside) > n {
		beside = beside[len(beside)-n:]
	}
	if len(beside) > 0 {
		fmt.Fprintln(w, "besides:")
	}
	for i := range beside {
		fmt.Fprintf(w, "  %s  %s\n", beside[i].At.Format("2006-01-02 15:04:05.000"), beside[i].Line())
	}
}
