package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/identity"
)

// envConfig names the configuration that commands use without --config.
const envConfig = "PHXSQL_CONFIG"

// usualConfigs are looked for, in this order, without --config and envConfig.
var usualConfigs = []string{"node.toml", ".demo", "/etc/phxsql/node.toml"}

// commandCertificate is how long the certificate of a command lives; one that runs for
// longer gets another.
const commandCertificate = time.Hour

// target says which cluster a command speaks to.
type target struct {
	config string
	addrs  []string
}

func (t *target) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.config, "config", "",
		"configuration of a node, or a folder of some (node*.toml); without it $"+envConfig+", ./node.toml, ./.demo, /etc/phxsql/node.toml")
	cmd.Flags().StringSliceVar(&t.addrs, "addr", nil, "admin address (host:port) of the node to ask, instead of the configuration's own; may be given several times")
}

// connect returns a client for the cluster. Nothing is dialed.
func (t *target) connect() (*api.Client, error) {
	files, err := t.files()
	if err != nil {
		return nil, err
	}
	var cs []config.Config
	for _, f := range files {
		c, err := config.Load(f)
		if err != nil {
			return nil, err
		}
		cs = append(cs, c)
	}
	addrs := t.addrs
	if len(addrs) == 0 {
		for i := range cs {
			addrs = append(addrs, dialable(cs[i].Listen.Admin))
		}
	}
	secret, err := identity.LoadSecret(cs[0].Cluster.SecretFile)
	if err != nil {
		return nil, err
	}
	cred, err := secret.CredentialsUnder(cs[0].Node.ID, identity.Terms{Lifetime: commandCertificate})
	if err != nil {
		return nil, err
	}
	return api.NewClient(addrs, api.ClientTLS(cred)), nil
}

// files returns the configurations to use, at least one.
func (t *target) files() ([]string, error) {
	if t.config != "" {
		return expand(t.config)
	}
	if c := os.Getenv(envConfig); c != "" {
		return expand(c)
	}
	for _, c := range usualConfigs {
		files, err := expand(c)
		var usage *usageError
		if errors.Is(err, fs.ErrNotExist) || errors.As(err, &usage) {
			continue
		}
		return files, err
	}
	return nil, &usageError{"no configuration of a node is found here", "name one with --config, or set " + envConfig}
}

// expand returns the file, or the node*.toml in the folder.
func expand(path string) ([]string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if !fi.IsDir() {
		return []string{path}, nil
	}
	files, err := filepath.Glob(filepath.Join(path, "node*.toml"))
	if err != nil || len(files) == 0 {
		return nil, &usageError{fmt.Sprintf("no node*.toml is in %s", path), "name a configuration with --config"}
	}
	return files, nil
}

// dialable turns an address that is listened on into one to dial on this machine.
func dialable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
