package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func allKeys() []string {
	var keys []string
	var walk func(t reflect.Type, prefix string)
	walk = func(t reflect.Type, prefix string) {
		for i := range t.NumField() {
			f := t.Field(i)
			key := prefix + f.Tag.Get("toml")
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type, key+".")
				continue
			}
			keys = append(keys, key)
		}
	}
	walk(reflect.TypeFor[Config](), "")
	return keys
}

func machine(t *testing.T) (Config, string) {
	t.Helper()
	dir := t.TempDir()
	c := Default()
	c.Node.ID = 1
	c.Node.DataDir = filepath.Join(dir, "a", "b")
	c.Cluster.SecretFile = filepath.Join(dir, "secret")
	c.Listen = Addresses{RW: "127.0.0.1:0", RO: "127.0.0.1:0", Peer: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	if err := os.WriteFile(c.Cluster.SecretFile, []byte(strings.Repeat("x", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func TestMachineIsFine(t *testing.T) {
	c, dir := machine(t)
	if err := c.CheckMachine(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("the check left %v behind, %v", left, err)
	}
}

func TestMachineFaultsComeTogether(t *testing.T) {
	c, dir := machine(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.Listen.RO = l.Addr().String()
	c.Node.DataDir = filepath.Join(c.Cluster.SecretFile, "sub")
	c.Engine.Basedir = filepath.Join(dir, "none")
	if err := os.Chmod(c.Cluster.SecretFile, 0o640); err != nil {
		t.Fatal(err)
	}
	var fs Faults
	if err := c.CheckMachine(); !errors.As(err, &fs) {
		t.Fatalf("got %v", err)
	}
	_, port, _ := net.SplitHostPort(c.Listen.RO)
	want := map[string]string{
		"node.data_dir":       "not a directory",
		"cluster.secret_file": "chmod 600",
		"engine.basedir":      "is not a folder",
		"listen.ro":           fmt.Sprintf("port %s is taken by config.test (pid %d)", port, os.Getpid()),
	}
	for _, f := range fs {
		if w, ok := want[f.Key]; !ok || !strings.Contains(f.String(), w) {
			t.Errorf("got %v, want %q", f, w)
		}
		delete(want, f.Key)
	}
	for k := range want {
		t.Errorf("no fault for %s in %v", k, fs)
	}
}

func TestSecretFault(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, n int, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, make([]byte, n), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "does not exist",
		dir:                           "not a regular file",
		file("short", 31, 0o600):      "has 31 bytes",
		file("long", 5000, 0o600):     "at most 4096",
		file("open", 64, 0o644):       "mode 0644",
		file("good", 64, 0o400):       "",
	} {
		why, _ := SecretFault(path)
		if (want == "") != (why == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", filepath.Base(path), why, want)
		}
	}
}

func TestPortOfForeignAddress(t *testing.T) {
	why, _ := PortFault("203.0.113.9:80")
	if !strings.Contains(why, "cannot listen on 203.0.113.9:80") {
		t.Errorf("got %q", why)
	}
}
