package engine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// realEngine returns the engine that tests use: an installed one or a private
// one, fetched when there is none.
func realEngine(t *testing.T) Install {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	in, err := Ensure(ctx, Options{Progress: func(l string) { t.Log(l) }})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestEnsureGivesAWorkingServerAndClients(t *testing.T) {
	in := realEngine(t)
	if err := in.Version.check(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mysqld", "mysql", "mysqldump", "mysqladmin"} {
		out, err := in.Command(t.Context(), name, "--no-defaults", "--version").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		if !strings.Contains(string(out), in.Version.Release()) {
			t.Errorf("%s --version = %q, want release %s", name, out, in.Version.Release())
		}
	}
}

func TestWrapperPassesItsArguments(t *testing.T) {
	in := realEngine(t)
	for _, name := range []string{"mysql", "mysqld"} {
		script := filepath.Join(t.TempDir(), "it's "+name)
		if err := in.WriteWrapper(script, name); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), script, "--no-defaults", "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), in.Version.Release()) {
			t.Errorf("%s wrapper: %v: %s", name, err, out)
		}
	}
}

// fakeServer writes a program that prints a version line, for what must be
// refused without such a server at hand.
func fakeServer(t *testing.T, line string) string {
	t.Helper()
	base := t.TempDir()
	bin := filepath.Join(base, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "#!/bin/sh\necho '" + line + "'\n"
	if err := os.WriteFile(filepath.Join(bin, "mysqld"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return base
}

func TestNamedEngineIsUsedOrRefused(t *testing.T) {
	for _, tc := range []struct{ line, want string }{
		{"mysqld  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)", ""},
		{"mysqld  Ver 8.4.0-1 for Linux on x86_64 (Percona Server (GPL), Release 1)", ""},
		{"mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)", "too old"},
		{"mysqld  Ver 10.11.6-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", "not supported"},
		{"hello", "parse server version"},
	} {
		base := fakeServer(t, tc.line)
		in, err := Find(t.Context(), Options{Basedir: base})
		if tc.want == "" {
			if err != nil || in.Basedir != base || in.Private() {
				t.Errorf("%s: %+v, %v", tc.line, in, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.line, err, tc.want)
		}
	}
}

func TestEnvironmentNamesTheEngine(t *testing.T) {
	base := fakeServer(t, "mysqld  Ver 9.1.2 for Linux on x86_64 (MySQL Community Server - GPL)")
	t.Setenv(EnvBasedir, base)
	in, err := Find(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Version{9, 1, 2, "MySQL"}, in.Version); diff != "" {
		t.Error(diff)
	}
	t.Setenv(EnvBasedir, t.TempDir())
	if _, err := Find(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "no mysqld program") {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestEmptyCacheIsNotFound(t *testing.T) {
	t.Setenv(EnvBasedir, "")
	_, err := Find(t.Context(), Options{CacheDir: t.TempDir(), PrivateOnly: true})
	if err == nil || !strings.Contains(err.Error(), ErrNotFound.Error()) {
		t.Fatal(err)
	}
}

func TestLockIsExclusiveAndCancellable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), Options{}, path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := Options{Progress: func(string) { cancel() }}
	if _, err := lock(ctx, waiting, path); err == nil {
		t.Fatal("two holders of one lock")
	}
	unlock()
	again, err := lock(t.Context(), Options{}, path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
