package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// A token on the command line stands in the process list for as long as the process
// lives, and "join" goes on as the node. So it starts itself anew at once, with the token
// in a pipe.

// withoutToken returns the arguments of a join with the place of a token in the place of
// the token itself. Found reports that there is exactly one to hide.
func withoutToken(args []string, place string) (rest []string, token string, found bool) {
	if !slices.Contains(args, "join") {
		return nil, "", false
	}
	for i := 0; i < len(args); i++ {
		value, joined := strings.CutPrefix(args[i], "--token=")
		switch {
		case strings.HasPrefix(args[i], "--token-file"), found && (joined || args[i] == "--token"):
			return nil, "", false // the command says what is wrong
		case joined:
			token, found = value, true
			rest = append(rest, "--token-file", place)
		case args[i] == "--token" && i+1 < len(args):
			token, found = args[i+1], true
			rest = append(rest, "--token-file", place)
			i++
		default:
			rest = append(rest, args[i])
		}
	}
	return rest, token, found
}

// hideToken starts this program in its own place, if there is a token to hide. It returns
// if there is none, or if that fails.
func hideToken(args []string) error {
	if _, _, found := withoutToken(args, ""); !found {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("hide token: %w", err)
	}
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil { // not closed by the exec
		return fmt.Errorf("hide token: %w", err)
	}
	rest, token, _ := withoutToken(args, fmt.Sprintf("/dev/fd/%d", pipe[0]))
	if len(token) > maxPiped {
		return fmt.Errorf("hide token: it has %d bytes, the limit is %d", len(token), maxPiped)
	}
	if _, err := syscall.Write(pipe[1], []byte(token)); err != nil {
		return fmt.Errorf("hide token: %w", err)
	}
	if err := syscall.Close(pipe[1]); err != nil {
		return fmt.Errorf("hide token: %w", err)
	}
	return fmt.Errorf("hide token: %w", syscall.Exec(program, rest, os.Environ()))
}

// maxPiped is what fits into a pipe at once, whatever its size.
const maxPiped = 4096
