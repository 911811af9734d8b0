package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A private tree is a folder of unpacked Debian packages. Its programs need the
// C library they were built for, so they are started through the tree's own
// loader:
//
//	CACHE/engine-9.7.4-2/
//	  phxsql-tree.json                      manifest, written last
//	  usr/sbin/mysqld
//	  usr/bin/mysql ...
//	  usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
//	  usr/lib/mysql/plugin/semisync_source.so ...

// manifestName is the file that makes a folder a private tree of ours.
const manifestName = "phxsql-tree.json"

// manifest says what a private tree holds.
type manifest struct {
	Name     string   `json:"name"`     // "engine" or a tool's name
	Version  string   `json:"version"`  // the main package's version
	Suite    string   `json:"suite"`    // where it came from
	Packages []string `json:"packages"` // file names of everything unpacked
}

// platform names the folders of one processor architecture in a Debian tree.
type platform struct {
	debian string // dpkg's name
	triple string // library folder
	loader string // file name of the dynamic loader
}

var platforms = map[string]platform{
	"amd64": {"amd64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"},
	"arm64": {"arm64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"},
}

// loaderOf returns the loader of the private tree at root, or "".
func loaderOf(root string) string {
	p, ok := platforms[runtime.GOARCH]
	if !ok {
		return ""
	}
	loader := filepath.Join(root, "usr/lib", p.triple, p.loader)
	if _, err := os.Stat(loader); err != nil {
		return ""
	}
	return loader
}

// loaderArgs is the beginning of a command line that runs path from the tree
// at root; empty when root is not a private tree.
func loaderArgs(root, path string) []string {
	loader := ""
	if root != "" {
		loader = loaderOf(root)
	}
	if loader == "" {
		return nil
	}
	return []string{loader, "--library-path", filepath.Dir(loader), "--argv0", path}
}

func treeCommand(ctx context.Context, root, path string, args []string) *exec.Cmd {
	line := append(append(loaderArgs(root, path), path), args...)
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

// findTrees lists the complete private trees of one name, newest name first.
func findTrees(cache, name string) ([]string, error) {
	entries, err := os.ReadDir(cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list private engines: %w", err)
	}
	var roots []string
	for _, e := range entries {
		root := filepath.Join(cache, e.Name())
		if m, err := readManifest(root); err == nil && m.Name == name {
			roots = append(roots, root)
		}
	}
	slices.Sort(roots)
	slices.Reverse(roots)
	return roots, nil
}

func readManifest(root string) (manifest, error) {
	var m manifest
	b, err := os.ReadFile(filepath.Join(root, manifestName))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", manifestName, err)
	}
	return m, nil
}

func (m manifest) write(root string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	return os.WriteFile(filepath.Join(root, manifestName), append(b, '\n'), 0o644)
}

// findPrivate opens the newest private engine that an earlier fetch left.
func findPrivate(ctx context.Context, o Options) (Install, error) {
	cache, err := o.cacheDir()
	if err != nil {
		return Install{}, err
	}
	roots, err := findTrees(cache, engineTree.name)
	if err != nil {
		return Install{}, err
	}
	best, failed := Install{}, []error{ErrNotFound}
	for _, root := range roots {
		in, err := open(ctx, root)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if !best.Private() || best.Version.less(in.Version) {
			best = in
		}
	}
	if best.Private() {
		return best, nil
	}
	return Install{}, errors.Join(failed...)
}

func (v Version) less(o Version) bool {
	return slices.Compare([]int{v.Major, v.Minor, v.Patch}, []int{o.Major, o.Minor, o.Patch}) < 0
}

// WriteWrapper writes an executable shell script that runs one of the engine's
// programs with the script's own arguments, so that a person or another
// program can call it like an installed one.
func (in Install) WriteWrapper(script, name string) error {
	cmd := in.Command(context.Background(), name, "\x00")
	var line []string
	for _, arg := range cmd.Args {
		if arg == "\x00" {
			line = append(line, `"$@"`)
			continue
		}
		line = append(line, shellQuote(arg))
	}
	text := "#!/bin/sh\nexec " + strings.Join(line, " ") + "\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		return fmt.Errorf("write wrapper of %s: %w", name, err)
	}
	return nil
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
