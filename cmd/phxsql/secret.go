package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/identity"
)

func secretCommand(io stdio) *cobra.Command {
	create := &cobra.Command{
		Use:   "create FILE",
		Short: "Write a new random secret to a file that does not exist yet",
		Args:  oneArg,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := identity.CreateSecret(args[0])
			if errors.Is(err, fs.ErrExist) {
				return &usageError{args[0] + " exists already", "a cluster's secret is not replaced in place: choose another file"}
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(io.out, "%s holds a new secret (fingerprint %s): copy it to every member, readable by its owner only\n",
				args[0], s.Fingerprint())
			return nil
		},
	}
	return group("secret", "Make the secret that all members of a cluster share", create)
}
