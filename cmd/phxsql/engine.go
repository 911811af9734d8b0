package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/engine"
)

func engineCommand(io stdio) *cobra.Command {
	var basedir string
	options := func() engine.Options {
		return engine.Options{Basedir: basedir, Progress: func(line string) { fmt.Fprintln(io.err, line) }}
	}
	fetch := &cobra.Command{
		Use:   "fetch",
		Short: "Find an engine, or fetch one into a private folder; nothing is installed",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := engine.Ensure(cmd.Context(), options())
			if err != nil {
				return err
			}
			fmt.Fprintln(io.out, in)
			return nil
		},
	}
	path := &cobra.Command{
		Use:   "path",
		Short: "Print the folder of the engine that a node would use",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := findEngine(cmd, options())
			if err != nil {
				return err
			}
			fmt.Fprintln(io.out, in.Basedir)
			return nil
		},
	}
	run := &cobra.Command{
		Use:     "exec -- PROGRAM [ARGUMENT...]",
		Short:   "Run one of the engine's programs: mysql, mysqldump, mysqladmin, mysqlbinlog",
		Example: "  phxsql engine exec -- mysql -h 127.0.0.1 -P 3306 -u app -p",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{"no program is named", "such as: phxsql engine exec -- mysql --help"}
			}
			in, err := findEngine(cmd, options())
			if err != nil {
				return err
			}
			return become(in.Command(context.WithoutCancel(cmd.Context()), args[0], args[1:]...), args[0], io)
		},
	}
	run.Flags().SetInterspersed(false)
	g := group("engine", "Find, fetch and use the MySQL that nodes run", fetch, path, run)
	g.PersistentFlags().StringVar(&basedir, "basedir", "", "use the engine that is installed there")
	return g
}

func findEngine(cmd *cobra.Command, o engine.Options) (engine.Install, error) {
	in, err := engine.Find(cmd.Context(), o)
	if errors.Is(err, engine.ErrNotFound) {
		return in, &hintError{err, "fetch one with 'phxsql engine fetch', or install MySQL 8.4 or newer"}
	}
	return in, err
}

// hintError adds what to do next to an error.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error     { return e.error }
func (e *hintError) ErrorHint() string { return e.hint }

// become has another program take this one's place: signals and the terminal are
// its own from then on. Where input or output are not this process's, as in
// tests, it runs the program instead and ends as it does.
func become(cmd *exec.Cmd, name string, io stdio) error {
	if cmd.Err == nil && io.in == os.Stdin && io.out == os.Stdout && io.err == os.Stderr {
		env := cmd.Env
		if env == nil {
			env = os.Environ()
		}
		return fmt.Errorf("run %s: %w", name, syscall.Exec(cmd.Path, cmd.Args, env))
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.in, io.out, io.err
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &exitError{exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	return nil
}
