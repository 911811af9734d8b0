package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Tool is a program that tests and benchmarks use beside the engine.
type Tool struct {
	Path string // the program
	Root string // root of its private tree; empty for an installed program
	env  []string
}

// toolTrees are the tools that can be fetched.
var toolTrees = map[string]tree{
	"sysbench": {
		name:     "sysbench",
		packages: []string{"sysbench"},
		drop: []string{"usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/gdb",
			"usr/share/sysbench/tests/t", "usr/share/gcc"},
	},
}

// FetchTool returns a tool ("sysbench"): the one on PATH, else the one that an
// earlier fetch left in the user's cache directory, else a freshly fetched one.
func FetchTool(ctx context.Context, name string) (Tool, error) {
	return EnsureTool(ctx, name, Options{})
}

// EnsureTool is FetchTool with a say in where to look; Options.Basedir has no
// meaning here.
func EnsureTool(ctx context.Context, name string, o Options) (Tool, error) {
	if !o.PrivateOnly {
		if p, err := exec.LookPath(name); err == nil {
			return Tool{Path: p}, nil
		}
	}
	t, ok := toolTrees[name]
	if !ok {
		return Tool{}, fmt.Errorf("fetch tool %q: not one that can be fetched", name)
	}
	root, err := fetchTree(ctx, o, t, func(root string) error {
		return newTool(root, name).check(ctx)
	})
	if err != nil {
		return Tool{}, err
	}
	return newTool(root, name), nil
}

func newTool(root, name string) Tool {
	t := Tool{Root: root, Path: filepath.Join(root, "usr/bin", name)}
	t.env = []string{
		// Where sysbench finds its bundled scripts and they each other.
		"LUA_PATH=" + filepath.Join(root, "usr/share", name, "?.lua") + ";;",
	}
	if loader := loaderOf(root); loader != "" {
		// Where its MySQL client library finds caching_sha2_password.
		t.env = append(t.env, "MARIADB_PLUGIN_DIR="+filepath.Join(filepath.Dir(loader), "libmariadb3/plugin"))
	}
	return t
}

func (t Tool) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := t.Command(ctx, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s --version: %w: %s", t.Path, err, firstLine(out))
	}
	return nil
}

// Command prepares a run of the tool.
func (t Tool) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := treeCommand(ctx, t.Root, t.Path, args)
	if len(t.env) > 0 {
		cmd.Env = append(os.Environ(), t.env...)
	}
	return cmd
}
