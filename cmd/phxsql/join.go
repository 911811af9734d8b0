package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/agent"
	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/paxos"
)

type joinOptions struct {
	config    string
	seeds     []string
	token     string
	tokenFile string
	role      string
	named     bool // the role stands on the command line
	replace   uint64
	prepare   bool
}

func joinCommand(io stdio) *cobra.Command {
	var o joinOptions
	cmd := &cobra.Command{
		Use:   "join --config FILE --seed HOST:PORT --token-file FILE",
		Short: "Make this machine a member of a cluster that exists, and run it",
		Long: `Make this machine a member of a cluster that exists, and run it until SIGTERM or
Ctrl-C. The configuration names a node.id that was never used and an empty
node.data_dir. The token comes from 'phxsql token create' on a member; it is exchanged
for the cluster's secret, which is written to cluster.secret_file. Without a token the
file must be there.

The node becomes a learner, gets the data, catches up, has them compared with the
master's, and takes its role. How far it is stands on standard output, and in 'phxsql
status' on any member. It may be stopped at any moment: 'phxsql server' goes on.`,
		Example: `  phxsql token create                                  # on a member
  phxsql join --config node.toml --seed db1:3309 --token-file token.txt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.named = cmd.Flags().Changed("role")
			cfg, err := o.prepareNode(cmd.Context())
			if err != nil {
				return err
			}
			if o.prepare {
				fmt.Fprintf(io.out, "node %d joins when it runs: phxsql server --config %s\n", cfg.Node.ID, o.config)
				return nil
			}
			self := target{config: o.config}
			if c, err := self.connect(); err == nil { // else the node itself says what is wrong
				defer c.Close()
				ctx, cancel := context.WithCancel(cmd.Context())
				defer cancel()
				go func() { _ = showProgress(ctx, io.out, c, cfg.Node.ID, o.role) }() // it ends with the node
			}
			return serve(cmd.Context(), o.config, cfg, io)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "the node's configuration")
	f.StringSliceVar(&o.seeds, "seed", nil, "admin address (host:port) of a member; may be given several times")
	f.StringVar(&o.token, "token", "", "a join token; it is taken off the process list at once, --token-file does not show it even for a moment")
	f.StringVar(&o.tokenFile, "token-file", "", "file that holds a join token; - is standard input")
	f.StringVar(&o.role, "role", "voter", "voter, witness (votes, has no data) or learner (has the data, does not vote); left out, it is what the token was made for")
	f.Uint64Var(&o.replace, "replace", 0, "id of the member whose place the node takes when it has caught up")
	f.BoolVar(&o.prepare, "prepare", false, "do not run the node: 'phxsql server' will bring it in")
	return cmd
}

// prepareNode gets the secret and writes down that the node shall join.
func (o *joinOptions) prepareNode(ctx context.Context) (config.Config, error) {
	switch {
	case o.config == "":
		return config.Config{}, &usageError{"no configuration is named", "phxsql join --config node.toml; 'phxsql config sample' prints one"}
	case len(o.seeds) == 0:
		return config.Config{}, &usageError{"no member is named", "--seed HOST:PORT: the admin address of one"}
	case o.role != "voter" && o.role != "witness" && o.role != "learner":
		return config.Config{}, &usageError{fmt.Sprintf("--role is %q", o.role), "use voter, witness or learner"}
	}
	cfg, err := config.Load(o.config)
	if err != nil {
		return cfg, err
	}
	if !identity.HasSecret(cfg.Cluster.SecretFile) {
		err = o.redeem(ctx, cfg)
	} else if text, unread := o.readToken(); unread == nil { // the command is given again
		if t, unread := identity.ParseToken(text); unread == nil {
			err = o.takeRole(t)
		}
	}
	if err != nil {
		return cfg, err
	}
	return cfg, agent.PrepareJoin(cfg, agent.Join{Seeds: o.seeds, Role: o.role, Replace: paxos.NodeID(o.replace)})
}

// redeemLimit is how long a cluster may take to give the secret for a token.
const redeemLimit = 30 * time.Second

// takeRole takes the role that the token was made for, where none is named. Another one is
// a mistake.
func (o *joinOptions) takeRole(t identity.Token) error {
	switch {
	case t.Role == "" || t.Role == o.role:
	case o.named:
		return &usageError{fmt.Sprintf("--role is %s, and the token was made for a %s", o.role, t.Role),
			"leave --role out, or make another token: phxsql token create --role " + o.role}
	default:
		o.role = t.Role
	}
	return nil
}

// redeem exchanges the token for the cluster's secret.
func (o *joinOptions) redeem(ctx context.Context, cfg config.Config) error {
	text, err := o.readToken()
	if err != nil {
		return err
	}
	t, err := identity.ParseToken(text)
	if err != nil {
		return &usageError{err.Error(), "copy all of what 'phxsql token create' prints on a member"}
	}
	if err := o.takeRole(t); err != nil {
		return err
	}
	c := api.NewClient(o.seeds, t.ClientConfig())
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, redeemLimit)
	defer cancel()
	// The folder first: a token is gone once it is used.
	if err := os.MkdirAll(filepath.Dir(cfg.Cluster.SecretFile), 0o750); err != nil {
		return fmt.Errorf("make folder of secret file: %w", err)
	}
	res, err := c.Redeem(ctx, strings.TrimSpace(text))
	if err != nil {
		return err
	}
	return identity.StoreSecret(cfg.Cluster.SecretFile, res.Secret)
}

func (o *joinOptions) readToken() (string, error) {
	switch {
	case o.token != "" && o.tokenFile != "":
		return "", &usageError{"--token and --token-file exclude each other", ""}
	case o.token != "":
		return o.token, nil
	case o.tokenFile == "":
		return "", &usageError{"there is no secret file and no token", "'phxsql token create' on a member prints one: --token-file FILE"}
	}
	path := o.tokenFile
	if path == "-" {
		path = "/dev/stdin"
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if len(b) > 4096 {
		return "", errors.New("read token: the file is too large (hint: it holds one line)")
	}
	return string(b), nil
}
