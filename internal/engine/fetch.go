package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree describes a private tree to fetch: its name in the cache directory, the
// packages asked for (the first one gives the version), and what is of no use.
type tree struct {
	name     string
	packages []string
	drop     []string        // paths under the root, shell patterns
	keepBin  map[string]bool // programs of usr/bin to keep; nil keeps all
}

var engineTree = tree{
	name:     "engine",
	packages: []string{"mysql-server-core", "mysql-client-core"},
	drop: []string{
		"usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/gdb",
		"usr/share/perl*", "usr/share/gcc", "usr/lib/*/perl*", "etc/perl",
		"usr/lib/mysql/plugin/*test*.so", "usr/lib/mysql/plugin/*example*.so", "usr/lib/mysql/plugin/debug",
	},
	keepBin: map[string]bool{
		"mysql": true, "mysqldump": true, "mysqladmin": true, "mysqlbinlog": true,
		"mysqlimport": true, "mysqlcheck": true, "mysqlshow": true,
	},
}

// lockPoll is how often a waiting fetch looks whether another one has ended.
const lockPoll = 200 * time.Millisecond

// Fetch brings an engine into the user's cache directory and returns it. When
// one is there already, nothing is downloaded. It is safe to call from several
// processes at once: one downloads, the others wait for it.
func Fetch(ctx context.Context, progress func(line string)) (Install, error) {
	return fetchEngine(ctx, Options{Progress: progress})
}

func fetchEngine(ctx context.Context, o Options) (Install, error) {
	var in Install
	_, err := fetchTree(ctx, o, engineTree, func(root string) error {
		var err error
		in, err = open(ctx, root)
		return err
	})
	return in, err
}

// fetchTree returns the root of a private tree, which it fetches when there is
// none. check must accept the tree, both when it is new (before it is moved
// into place) and at its final place.
func fetchTree(ctx context.Context, o Options, t tree, check func(root string) error) (string, error) {
	cache, err := o.cacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	unlock, err := lock(ctx, o, filepath.Join(cache, t.name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	roots, err := findTrees(cache, t.name)
	if err != nil {
		return "", err
	}
	for _, root := range roots {
		if check(root) == nil {
			return root, nil
		}
	}
	root, err := t.build(ctx, o, cache, check)
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", t.name, err)
	}
	o.progress("ready in %s", root)
	return root, check(root)
}

// build downloads and unpacks beside the final place, then renames. The caller
// holds the lock of the tree's name.
func (t tree) build(ctx context.Context, o Options, cache string, check func(root string) error) (string, error) {
	work := filepath.Join(cache, ".tmp-"+t.name)
	if err := os.RemoveAll(work); err != nil { // an earlier fetch was interrupted
		return "", fmt.Errorf("remove an unfinished fetch: %w", err)
	}
	root := filepath.Join(work, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make a working folder: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // the next fetch removes what is left
	a, err := newApt(ctx, work)
	if err != nil {
		return "", err
	}
	debs, err := a.download(ctx, o, t.packages)
	if err != nil {
		return "", err
	}
	o.progress("unpacking %d packages", len(debs))
	if err := t.unpack(ctx, root, debs); err != nil {
		return "", err
	}
	m := t.manifest(debs)
	if err := m.write(root); err != nil {
		return "", err
	}
	if err := check(root); err != nil {
		return "", err
	}
	return t.place(cache, root, m)
}

// place moves a finished tree to its final name, replacing a broken one.
func (t tree) place(cache, root string, m manifest) (string, error) {
	if err := syncTree(root); err != nil {
		return "", err
	}
	final := filepath.Join(cache, t.name+"-"+m.Version)
	if err := os.RemoveAll(final); err != nil {
		return "", fmt.Errorf("remove a broken tree: %w", err)
	}
	if err := os.Rename(root, final); err != nil {
		return "", fmt.Errorf("move the tree into place: %w", err)
	}
	return final, nil
}

func (t tree) unpack(ctx context.Context, root string, debs []string) error {
	for _, deb := range debs {
		out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, root).CombinedOutput()
		if err != nil {
			return fmt.Errorf("unpack %s: %w: %s", filepath.Base(deb), err, firstLine(out))
		}
		if err := os.Remove(deb); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	return t.trim(root)
}

// trim removes what a private tree has no use for. The packages' copyright
// files stay.
func (t tree) trim(root string) error {
	var doomed []string
	for _, pattern := range append([]string{"usr/share/doc/*/[!c]*"}, t.drop...) {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return fmt.Errorf("trim tree: %w", err)
		}
		doomed = append(doomed, found...)
	}
	if t.keepBin != nil {
		programs, _ := filepath.Glob(filepath.Join(root, "usr/bin/*")) // the pattern is well-formed
		for _, p := range programs {
			if !t.keepBin[filepath.Base(p)] {
				doomed = append(doomed, p)
			}
		}
	}
	for _, path := range doomed {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("trim tree: %w", err)
		}
	}
	return nil
}

// manifest takes the version from the main package's file name, which is
// NAME_VERSION_ARCH.deb with ':' written as %3a.
func (t tree) manifest(debs []string) manifest {
	m := manifest{Name: t.name, Version: "0", Suite: suite}
	for _, deb := range debs {
		base := strings.TrimSuffix(filepath.Base(deb), ".deb")
		m.Packages = append(m.Packages, base)
		if f := strings.Split(base, "_"); len(f) == 3 && f[0] == t.packages[0] {
			_, v, epoch := strings.Cut(f[1], "%3a")
			if !epoch {
				v = f[1]
			}
			m.Version = v
		}
	}
	slices.Sort(m.Packages)
	return m
}

// syncTree makes the tree's files durable before its name says that they are
// complete.
func syncTree(root string) error {
	d, err := os.Open(root)
	if err != nil {
		return fmt.Errorf("sync tree: %w", err)
	}
	defer d.Close() //nolint:errcheck // opened for reading
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync tree: %w", err)
	}
	return nil
}

// lock takes an exclusive lock on the file at path, waiting while another
// process fetches. The kernel drops the lock with its process.
func lock(ctx context.Context, o Options, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for told := false; ; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			o.progress("another process is fetching: waiting for it")
			told = true
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}
