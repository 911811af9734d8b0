package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

const (
	rollingEvery = 200 * time.Millisecond // how often a node is looked at
	// rollingLag is how many transactions a node may be behind that counts as back:
	// under load it is never at the very end.
	rollingLag = 1000
	// switchTries is how often a switchover is asked for; a target that is just too
	// far behind may do a moment later.
	switchTries = 5
)

// restarted is one node's part, for -o json.
type restarted struct {
	Node paxos.NodeID `json:"node"`
	Name string       `json:"name"`
	Took api.Seconds  `json:"took_seconds"`
}

// rollingResult is what was done, also when not everything was.
type rollingResult struct {
	Restarted []restarted  `json:"restarted"`
	Master    paxos.NodeID `json:"master"`
	Took      api.Seconds  `json:"took_seconds"`
}

func rollingRestartCommand(io stdio) *cobra.Command {
	var t target
	var output string
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "rolling-restart",
		Short: "Restart all nodes one after another, the master last, without a pause in service",
		Long: `Restart all nodes one after another, the master last. Each node first lets its clients
finish their transactions and closes their connections, then stops its mysqld, and starts
again: the program as it lies on the disk then, with the configuration file as it is then.
So this is also how a new release, or a changed file, is put to use.

The next node is restarted only when the one before serves again and has caught up. Before
the master, another member becomes the master. What would leave no majority that is up is
refused, and so is a node whose program or configuration would not start. An interrupted
command does no harm: repeat it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			c, err := t.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			r := rollingRestart{client: c, limit: limit, say: io.out}
			if output == "json" {
				r.say = io.err
			}
			res, err := r.run(cmd.Context())
			if output == "json" {
				err = errors.Join(err, printJSON(io.out, res))
			}
			return err
		},
	}
	t.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().DurationVar(&limit, "timeout", 5*time.Minute, "how long one node may take until it serves again")
	return cmd
}

// rollingRestart is one run of the command.
type rollingRestart struct {
	client *api.Client
	limit  time.Duration
	say    io.Writer
}

func (r *rollingRestart) run(ctx context.Context) (res rollingResult, err error) {
	began := time.Now()
	defer func() { res.Took = api.Seconds(time.Since(began)) }()
	st, err := r.client.Status(ctx)
	if err != nil {
		return res, err
	}
	for _, m := range st.Members {
		r.client.Also(m.AdminAddr)
	}
	todo, err := restartOrder(st)
	if err != nil {
		return res, err
	}
	for _, m := range todo {
		took, err := r.one(ctx, m)
		if err != nil {
			return res, fmt.Errorf("restart %s: %w", memberName(m), err)
		}
		res.Restarted = append(res.Restarted, restarted{m.ID, memberName(m), api.Seconds(took)})
	}
	st, err = r.client.Status(ctx)
	if err != nil {
		return res, err
	}
	for _, m := range st.Members {
		if isMaster(st, m) {
			res.Master = m.ID
		}
	}
	fmt.Fprintf(r.say, "all %d nodes are restarted (%v); the master is %s\n", len(todo), time.Since(began).Round(100*time.Millisecond),
		orDash(name(st, func(m api.MemberStatus) bool { return m.ID == res.Master })))
	return res, nil
}

// restartOrder puts the master last. It refuses a cluster in which something is not
// well: whoever restarts nodes then may lose the majority.
func restartOrder(st api.Status) ([]api.MemberStatus, error) {
	var bad []string
	var todo []api.MemberStatus
	var master *api.MemberStatus
	for i, m := range st.Members {
		switch {
		case isMaster(st, m):
			master = &st.Members[i]
			continue
		case !isBack(m):
			state := string(m.State)
			if !m.Alive {
				state = "not heard of"
			}
			bad = append(bad, memberName(m)+" is "+state)
		}
		todo = append(todo, m)
	}
	if len(bad) > 0 {
		return nil, api.Refused("not_well", "the cluster is not well: "+strings.Join(bad, ", "), "see the problems in 'phxsql status'; repeat this when it is well")
	}
	if master == nil {
		return nil, api.Refused("no_master", "the cluster has no master", "see the problems in 'phxsql status'")
	}
	return append(todo, *master), nil
}

// isBack reports that a member that is not the master does its work.
func isBack(m api.MemberStatus) bool {
	switch m.State {
	case api.StateFollower:
		return m.Alive && m.LagTransactions <= rollingLag
	case api.StateWitness, api.StateMaster: // it may have been elected
		return m.Alive
	}
	return false
}

// one restarts a member and returns when it serves again.
func (r *rollingRestart) one(ctx context.Context, was api.MemberStatus) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	if err := r.makeFollower(ctx, was); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := r.client.RestartMember(ctx, fmt.Sprint(was.ID)); err != nil {
		return 0, err
	}
	if err := r.awaitBack(ctx, was); err != nil {
		return 0, err
	}
	took := time.Since(began)
	fmt.Fprintf(r.say, "%s is restarted (%v)\n", memberName(was), took.Round(100*time.Millisecond))
	return took, nil
}

// makeFollower makes another member the master if this one is it.
func (r *rollingRestart) makeFollower(ctx context.Context, m api.MemberStatus) error {
	for try := 1; ; try++ {
		st, err := r.client.Status(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(st.Members, func(o api.MemberStatus) bool { return o.ID == m.ID && isMaster(st, o) }) {
			return nil
		}
		res, err := r.client.Switchover(ctx, "")
		if err == nil {
			fmt.Fprintf(r.say, "another member is the master instead of %s (%v)\n", memberName(m), time.Duration(res.Took).Round(time.Millisecond))
			return nil
		}
		if try == switchTries {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// awaitBack waits until the member is another process than it was and does its work,
// as the others see it.
func (r *rollingRestart) awaitBack(ctx context.Context, was api.MemberStatus) error {
	last := "nothing was heard of it"
	for {
		st, err := r.client.Status(ctx)
		for _, m := range st.Members {
			if err != nil || m.ID != was.ID || m.Boot == was.Boot {
				continue
			}
			if isBack(m) && m.Log.Chosen+rollingLag >= newest(st) {
				return nil
			}
			last = fmt.Sprintf("it is %s, %d transactions behind", m.State, m.LagTransactions)
		}
		if pause(ctx, rollingEvery) != nil {
			return api.Unavailable("not_back", "it does not serve again: "+last, "see its log, and its problems in 'phxsql status'; then repeat this")
		}
	}
}

// newest is the end of the log, as far as any member knows.
func newest(st api.Status) paxos.Instance {
	var i paxos.Instance
	for _, m := range st.Members {
		i = max(i, m.Log.Chosen)
	}
	return i
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
