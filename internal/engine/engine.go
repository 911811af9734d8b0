// Package engine finds a MySQL-family server on this machine, or fetches one
// into a private folder without installing anything.
//
// It looks, in this order, at an explicitly named base directory, at the
// programs on PATH and in the usual places, and at the private folder that an
// earlier fetch left in the user's cache directory. Fetch fills that folder
// with Debian's own packages through the system's own apt mirror.
//
// The package does not start, configure or supervise a server; that is package
// mysqld. Invariants: a private tree is complete or absent (it is renamed into
// place as a whole), nothing outside the cache directory is ever written, and
// every package is verified by apt against Debian's archive keyring.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// EnvBasedir is the environment variable that names the engine to use when the
// configuration does not: a base directory, or a mysqld program.
const EnvBasedir = "PHXSQL_ENGINE"

// ErrNotFound is returned by Find when no usable engine is on this machine.
// Fetch may still be able to bring one.
var ErrNotFound = errors.New("find a MySQL server >= 8.4: none is installed")

// versionTimeout bounds one run of "mysqld --version".
const versionTimeout = 20 * time.Second

// Options says where to look. The zero value is the normal search.
type Options struct {
	// Basedir is the configured engine: a base directory (holding bin/mysqld
	// or sbin/mysqld), the root of a private tree (holding usr/sbin/mysqld),
	// or a mysqld program itself. When it is empty, EnvBasedir counts. An
	// engine named this way is used or refused, never passed over.
	Basedir string
	// CacheDir holds the private trees; empty means "phxsql" in the user's
	// cache directory.
	CacheDir string
	// PrivateOnly leaves out the programs on PATH and in the usual places.
	PrivateOnly bool
	// Progress receives one short line for each step of a fetch. It may be nil.
	Progress func(line string)
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

func (o Options) cacheDir() (string, error) {
	if o.CacheDir != "" {
		return filepath.Abs(o.CacheDir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w (hint: set HOME or XDG_CACHE_HOME)", err)
	}
	return filepath.Join(dir, "phxsql"), nil
}

// Install is a usable engine: a server and the client programs of the same
// version beside it.
type Install struct {
	// Version is the server's release.
	Version Version
	// Basedir is what the server knows as its base directory.
	Basedir string
	// Server is the mysqld program.
	Server string
	// Root is the root of a private tree; empty for an installed engine.
	Root string
}

// Private reports whether the programs run from a private tree, through the
// tree's own loader and libraries.
func (in Install) Private() bool { return in.Root != "" }

func (in Install) String() string {
	return fmt.Sprintf("%s in %s", in.Version, in.Basedir)
}

// Find returns the first usable engine, without any download. ErrNotFound says
// that there is none; the error then also names what was seen and refused.
func Find(ctx context.Context, o Options) (Install, error) {
	named := o.Basedir
	if named == "" {
		named = os.Getenv(EnvBasedir)
	}
	if named != "" {
		return open(ctx, named)
	}
	var refused []error
	if !o.PrivateOnly {
		for _, server := range installed() {
			in, err := open(ctx, server)
			if err == nil {
				return in, nil
			}
			refused = append(refused, err)
		}
	}
	in, err := findPrivate(ctx, o)
	if err == nil {
		return in, nil
	}
	if !errors.Is(err, ErrNotFound) {
		refused = append(refused, err)
	}
	return Install{}, errors.Join(append([]error{ErrNotFound}, refused...)...)
}

// Ensure is Find and, when nothing is there, Fetch.
func Ensure(ctx context.Context, o Options) (Install, error) {
	in, err := Find(ctx, o)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return in, err
	}
	in, ferr := fetchEngine(ctx, o)
	if ferr != nil {
		return Install{}, errors.Join(err, ferr)
	}
	return in, nil
}

// installed lists the mysqld programs on PATH and in the usual places, once
// each.
func installed() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	dirs = append(dirs, "/usr/sbin", "/usr/local/sbin", "/usr/libexec",
		"/usr/local/mysql/bin", "/opt/mysql/bin", "/opt/homebrew/bin")
	var found []string
	seen := map[string]bool{}
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			continue
		}
		path, err := filepath.EvalSymlinks(filepath.Join(dir, "mysqld"))
		if err == nil && isProgram(path) && !seen[path] {
			seen[path] = true
			found = append(found, path)
		}
	}
	return found
}

// open makes an Install of a named base directory, private root or program.
func open(ctx context.Context, path string) (Install, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Install{}, fmt.Errorf("open engine: %w", err)
	}
	server := ""
	for _, sub := range []string{"", "bin/mysqld", "sbin/mysqld", "libexec/mysqld", "usr/sbin/mysqld"} {
		if p := filepath.Join(path, sub); isProgram(p) {
			server = p
			break
		}
	}
	if server == "" {
		return Install{}, fmt.Errorf("open engine %s: no mysqld program there (hint: name the directory that holds bin/mysqld or sbin/mysqld)", path)
	}
	in := Install{Server: server, Basedir: filepath.Dir(filepath.Dir(server))}
	if root := filepath.Dir(in.Basedir); root != "/" && loaderOf(root) != "" {
		in.Root = root
	}
	in.Version, err = in.readVersion(ctx)
	if err != nil {
		return Install{}, err
	}
	if err := in.Version.check(); err != nil {
		return Install{}, fmt.Errorf("use engine %s: %w", server, err)
	}
	return in, nil
}

func (in Install) readVersion(ctx context.Context) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := in.program(ctx, in.Server, []string{"--no-defaults", "--version"})
	out, err := cmd.CombinedOutput()
	if err != nil {
		return Version{}, fmt.Errorf("run %s --version: %w: %s", in.Server, err, firstLine(out))
	}
	return parseVersion(string(out))
}

// Command prepares one of the engine's programs: "mysqld", "mysql",
// "mysqldump", "mysqladmin", "mysqlbinlog". For mysqld the paths of a private
// tree are appended to the arguments, so they win over an option file. The
// error of a program that is missing appears when the command is started.
func (in Install) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "mysqld" {
		return in.program(ctx, in.Server, append(append([]string{}, args...), in.serverPaths()...))
	}
	return in.program(ctx, in.client(name), args)
}

// client is the path of a client program: beside the server, in the base
// directory, or on PATH.
func (in Install) client(name string) string {
	for _, dir := range []string{filepath.Dir(in.Server), filepath.Join(in.Basedir, "bin")} {
		if p := filepath.Join(dir, name); isProgram(p) {
			return p
		}
	}
	if !in.Private() {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	return filepath.Join(in.Basedir, "bin", name)
}

// serverPaths tells a server that runs from a private tree where its files are;
// the paths built into it point at the real /usr.
func (in Install) serverPaths() []string {
	if !in.Private() {
		return nil
	}
	return []string{
		"--basedir=" + in.Basedir,
		"--lc-messages-dir=" + filepath.Join(in.Basedir, "share/mysql"),
		"--character-sets-dir=" + filepath.Join(in.Basedir, "share/mysql/charsets"),
		"--plugin-dir=" + filepath.Join(in.Basedir, "lib/mysql/plugin"),
	}
}

func (in Install) program(ctx context.Context, path string, args []string) *exec.Cmd {
	return treeCommand(ctx, in.Root, path, args)
}

func isProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}
