package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// The limits of the secret file's length in bytes.
const (
	MinSecret = 32
	MaxSecret = 4096
)

// CheckMachine compares the configuration with the machine: the data directory
// is writable, the secret is private and long enough, the ports are free. It
// leaves everything as it is; a port is bound for a moment. The error is of type
// Faults.
func (c *Config) CheckMachine() error {
	return slices.Concat(c.checkFiles(), c.checkPorts()).orNil()
}

// CheckFiles is CheckMachine without the ports, for a node that is running.
func (c *Config) CheckFiles() error { return c.checkFiles().orNil() }

func (c *Config) checkFiles() Faults {
	var fs Faults
	if why, hint := dataDirFault(c.Node.DataDir); why != "" {
		fs = append(fs, Fault{"node.data_dir", why, hint})
	}
	if why, hint := SecretFault(c.Cluster.SecretFile); why != "" {
		fs = append(fs, Fault{"cluster.secret_file", why, hint})
	}
	if b := c.Engine.Basedir; b != "" {
		if fi, err := os.Stat(b); err != nil || !fi.IsDir() {
			fs = append(fs, Fault{"engine.basedir", b + " is not a folder", "leave it empty to have an engine found"})
		}
	}
	return fs
}

// dataDirFault says why the data directory cannot be used. One that does not
// exist can be if it can be made.
func dataDirFault(dir string) (why, hint string) {
	at := dir
	for {
		fi, err := os.Stat(at)
		if err == nil {
			if !fi.IsDir() {
				return at + " is not a folder", ""
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err.Error(), ""
		}
		up := filepath.Dir(at)
		if up == at {
			return err.Error(), ""
		}
		at = up
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Sprintf("cannot write to %s: %v", at, err),
			fmt.Sprintf("make %s and give it to the user that runs the node", dir)
	}
	return "", ""
}

// SecretFault says why a file cannot be the cluster's secret, and what to do.
func SecretFault(path string) (why, hint string) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path + " does not exist", "make one with 'phxsql secret create " + path + "' and copy it to all members; 'phxsql join' gets it for a token"
	case err != nil:
		return err.Error(), ""
	case !fi.Mode().IsRegular():
		return path + " is not a regular file", ""
	case fi.Mode().Perm()&0o077 != 0:
		return fmt.Sprintf("%s can be read or written by others (mode %04o)", path, fi.Mode().Perm()), "chmod 600 " + path
	case fi.Size() < MinSecret:
		return fmt.Sprintf("%s has %d bytes, at least %d are needed", path, fi.Size(), MinSecret), "make one with 'phxsql secret create'"
	case fi.Size() > MaxSecret:
		return fmt.Sprintf("%s has %d bytes, at most %d are allowed", path, fi.Size(), MaxSecret), "make one with 'phxsql secret create'"
	}
	if err := unix.Access(path, unix.R_OK); err != nil {
		return fmt.Sprintf("cannot read %s: %v", path, err), "give it to the user that runs the node"
	}
	return "", ""
}

func (c *Config) checkPorts() Faults {
	var fs Faults
	for _, a := range c.Listen.named("listen.") {
		if why, hint := PortFault(a.addr); why != "" {
			fs = append(fs, Fault{a.key, why, hint})
		}
	}
	return fs
}

// PortFault says why an address cannot be listened on, and who has it if that
// can be told.
func PortFault(addr string) (why, hint string) {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		_ = l.Close()
		return "", ""
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Sprintf("cannot listen on %s: %v", addr, innermost(err)), ""
	}
	_, port, _ := splitAddr(addr)
	if who := PortHolder(port); who != "" {
		return fmt.Sprintf("port %s is taken by %s", port, who), "stop it, or choose another port"
	}
	return fmt.Sprintf("port %s is taken", port), "choose another port, or find who has it with: ss -ltnp 'sport = :" + port + "'"
}

func innermost(err error) error {
	for {
		in := errors.Unwrap(err)
		if in == nil {
			return err
		}
		err = in
	}
}
