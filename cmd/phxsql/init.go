package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

// defaultPeerPort is that of the default configuration.
const defaultPeerPort = "3308"

type initOptions struct {
	target
	members       string
	user          string
	passwordFile  string
	passwordStdin bool
	output        string
}

func initCommand(io stdio) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init --members ID=HOST:PORT,...",
		Short: "Make a cluster of blank nodes",
		Long: `Make a cluster of nodes that belong to none yet. All of them must be running; ask any
one of them, once. A member is written ID=HOST:PORT with its node.id and the address
of its peer port; without a port it is ` + defaultPeerPort + `, without ids the members are 1, 2, 3, ... in
the order given.

The first account for clients is made as well. Its password comes from a file or from
standard input, or it is drawn, printed once and kept nowhere.`,
		Example: `  phxsql init --config node.toml --members 1=db1:3308,2=db2:3308,3=db3:3308
  phxsql init --members 10.0.0.1,10.0.0.2,10.0.0.3 --user app --password-file app.password`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := o.request(io.in)
			if err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			res, err := c.Init(cmd.Context(), req)
			if err != nil {
				return err
			}
			if o.output == "json" {
				return printJSON(io.out, res)
			}
			renderInit(io.out, res)
			return nil
		},
	}
	o.flags(cmd)
	outputFlag(cmd, &o.output)
	f := cmd.Flags()
	f.StringVar(&o.members, "members", "", "all members of the new cluster")
	f.StringVar(&o.user, "user", "app", `name of the first account for clients; "" makes none`)
	f.StringVar(&o.passwordFile, "password-file", "", "file that holds its password")
	f.BoolVar(&o.passwordStdin, "password-stdin", false, "read its password from standard input")
	return cmd
}

func (o *initOptions) request(in io.Reader) (api.InitRequest, error) {
	if err := checkOutput(o.output); err != nil {
		return api.InitRequest{}, err
	}
	members, err := parseMembers(o.members)
	if err != nil {
		return api.InitRequest{}, err
	}
	password, err := o.password(in)
	if err != nil {
		return api.InitRequest{}, err
	}
	return api.InitRequest{Members: members, User: o.user, Password: password}, nil
}

// maxPassword limits what is read as a password.
const maxPassword = 1024

func (o *initOptions) password(in io.Reader) (string, error) {
	switch {
	case o.passwordFile != "" && o.passwordStdin:
		return "", &usageError{"--password-file and --password-stdin exclude each other", ""}
	case o.passwordFile != "":
		f, err := os.Open(o.passwordFile)
		if err != nil {
			return "", fmt.Errorf("read password: %w", err)
		}
		defer f.Close()
		in = f
	case !o.passwordStdin:
		return "", nil
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPassword+1))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	p := strings.TrimRight(string(b), "\r\n")
	if p == "" || len(p) > maxPassword || strings.ContainsAny(p, "\r\n\x00") {
		return "", &usageError{"the password is empty, too long, or more than one line", ""}
	}
	return p, nil
}

// parseMembers reads "1=host:port,2=host:port" or "host,host".
func parseMembers(text string) ([]api.InitMember, error) {
	const hint = "write --members 1=host:port,2=host:port,3=host:port"
	if text == "" {
		return nil, &usageError{"the members of the new cluster are not named", hint}
	}
	var ms []api.InitMember
	named := strings.Contains(text, "=")
	for i, part := range strings.Split(text, ",") {
		m := api.InitMember{ID: paxos.NodeID(i + 1), Peer: part}
		if id, addr, ok := strings.Cut(part, "="); ok {
			n, err := strconv.ParseUint(id, 10, 31)
			if err != nil || n == 0 {
				return nil, &usageError{fmt.Sprintf("%q is not the id of a node", id), hint}
			}
			m.ID, m.Peer = paxos.NodeID(n), addr
		} else if named {
			return nil, &usageError{fmt.Sprintf("the member %q has no id, although others have", part), hint}
		}
		if _, _, err := net.SplitHostPort(m.Peer); err != nil {
			m.Peer = net.JoinHostPort(strings.Trim(m.Peer, "[]"), defaultPeerPort)
		}
		if host, _, err := net.SplitHostPort(m.Peer); err != nil || host == "" {
			return nil, &usageError{fmt.Sprintf("%q is not an address", part), hint}
		}
		ms = append(ms, m)
	}
	return ms, nil
}

func renderInit(w io.Writer, res api.InitResult) {
	fmt.Fprintf(w, "cluster %s is made of %d members:\n", res.Cluster, len(res.Members))
	for _, m := range res.Members {
		fmt.Fprintf(w, "  %d  %s  %s\n", m.ID, m.Name, m.Peer)
	}
	if res.User != "" {
		fmt.Fprintf(w, "account for clients: %s\n", res.User)
	}
	if res.Password != "" {
		fmt.Fprintf(w, "its password, shown only now: %s\n", res.Password)
	}
}
