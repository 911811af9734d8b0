package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// selfLimit is how long the program on the disk may take to look at a configuration.
const selfLimit = 30 * time.Second

// self is this program and its configuration by where they lie, not by what they were
// when it started: a newer program, or a changed file, takes over at a restart.
type self struct {
	program, config string
}

func findSelf(config string) (self, error) {
	program, err := os.Executable()
	if err != nil {
		return self{}, fmt.Errorf("find this program: %w", err)
	}
	config, err = filepath.Abs(config)
	if err != nil {
		return self{}, fmt.Errorf("find the configuration: %w", err)
	}
	return self{program, config}, nil
}

// check has the program that lies there now look at the configuration.
func (s self) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, selfLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.program, "config", "check", "--running", s.config).CombinedOutput()
	if err != nil {
		return fmt.Errorf("try %s: %w: %s", s.program, err, bytes.TrimSpace(out[:min(len(out), 2000)]))
	}
	return nil
}

// replace runs that program in the place of this process, which keeps its number: who
// watches over it notices nothing. It returns only if that fails.
func (s self) replace() error {
	err := syscall.Exec(s.program, []string{s.program, "server", "--config", s.config}, os.Environ())
	return fmt.Errorf("start %s again: %w (hint: start the node's service; nothing is lost)", s.program, err)
}
