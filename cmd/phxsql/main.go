// Command phxsql is the whole of PhxSQL in one program: a node of a cluster
// ("server"), and the commands that make, watch and steer a cluster over the
// nodes' admin API.
//
// Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration; 3 no
// node could be asked; 4 something is not well ("status --exit-code"). "engine
// exec" ends as the program that it runs does.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := hideToken(os.Args); err != nil {
		printError(os.Stderr, err) // the token works all the same
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end; a second one ends the program.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}
