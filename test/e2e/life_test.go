package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/drill"
)

// long asks for the tests that take minutes.
var long = flag.Bool("life", false, "run the tests of the whole life of a cluster, which take minutes")

func onlyLong(t *testing.T) {
	t.Helper()
	if !*long {
		t.Skip("make life runs it")
	}
}

// bring adds a new machine by the one command, and waits until the members are as
// wanted: ids with roles.
func bring(t *testing.T, c *drill.Cluster, id int, want string, args ...string) *drill.Node {
	t.Helper()
	ctx := limit(t, 4*time.Minute)
	token, err := c.Run(ctx, "token", "create")
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.Add(id)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := n.Join(token, args...); err != nil {
		t.Fatal(err)
	}
	awaitMembers(t, c, want)
	t.Logf("node %d %v: joined in %v", id, args, time.Since(began).Round(10*time.Millisecond))
	return n
}

func awaitMembers(t *testing.T, c *drill.Cluster, want string) {
	t.Helper()
	err := drill.Eventually(limit(t, 3*time.Minute), func() error {
		got, err := members(c)
		if err == nil && got != want {
			err = fmt.Errorf("the members are %s, want %s", got, want)
		}
		return err
	})
	if err != nil {
		out, _ := c.Run(context.Background(), "status")
		logs := ""
		for _, n := range c.Nodes {
			logs += n.LogTail() + "\n\n"
		}
		t.Fatalf("%v\n%s\n%s", err, out, logs)
	}
}

// copied makes sure that a node got its data from another one.
func copied(t *testing.T, n *drill.Node) {
	t.Helper()
	b, err := os.ReadFile(n.Log())
	if err != nil || !strings.Contains(string(b), "copy complete") || !strings.Contains(string(b), "node is restored") {
		t.Errorf("node %d did not get a copy: %v\n%s", n.ID, err, b)
	}
}

// serving waits until all nodes do their work; they may lag behind the load.
func serving(t *testing.T, c *drill.Cluster) {
	t.Helper()
	if err := c.WaitServing(limit(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
}

func members(c *drill.Cluster) (string, error) {
	st, err := c.Status(context.Background())
	var list []string
	for _, m := range st.Members {
		if m.Role == "" {
			continue // it was removed, and says so
		}
		list = append(list, fmt.Sprintf("%d %s", m.ID, m.Role))
	}
	return strings.Join(list, ", "), err
}

// TestTheLifeOfACluster: one node becomes three, one of them is replaced after its
// machine died, and one is removed while it is the master; all under load.
func TestTheLifeOfACluster(t *testing.T) {
	c := start(t, drill.Options{Nodes: 1, Extra: smallLog})
	w := load(t, c)
	ctx := limit(t, 5*time.Minute)
	fill(t, c, 8)
	// The new ones cannot get it from the log, nor from its memory.
	if err := c.Nodes[0].KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Master(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	copied(t, bring(t, c, 2, "1 voter, 2 voter"))
	dead := bring(t, c, 3, "1 voter, 2 voter, 3 voter")
	serving(t, c)
	t.Logf("longest time without an acknowledgement while growing: %v", w.Pause(began))

	if err := c.Forget(dead); err != nil { // its disk is gone, too
		t.Fatal(err)
	}
	if err := os.RemoveAll(dead.Dir()); err != nil {
		t.Fatal(err)
	}
	out, err := c.Run(ctx, "member", "remove", "2")
	if err == nil || !strings.Contains(err.Error(), "--force-lose-majority") {
		t.Errorf("the majority was given away: %s %v", out, err)
	}
	copied(t, bring(t, c, 4, "1 voter, 2 voter, 4 voter", "--replace", "3"))
	serving(t, c)

	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.Run(ctx, "member", "remove", fmt.Sprint(master.ID)); err != nil {
		t.Fatal(out, err)
	}
	if err := c.Forget(master); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, n := range c.Nodes {
		left = append(left, fmt.Sprintf("%d voter", n.ID))
	}
	awaitMembers(t, c, strings.Join(left, ", "))
	judge(t, c, w)
}

// tokens are a matter of the cluster: any member lists those of the others and makes them
// void, and what is listed lets nobody in.
func tokens(t *testing.T, c *drill.Cluster) {
	t.Helper()
	ctx := limit(t, 2*time.Minute)
	ask := func(n *drill.Node, res any, args ...string) (string, error) {
		out, err := c.Run(ctx, append(args, "-o", "json", "--addr", n.Admin)...)
		if err != nil {
			return "", err
		}
		return out, json.Unmarshal([]byte(out), res)
	}
	eventually := func(f func() error) { // leadership may move on a busy machine
		t.Helper()
		if err := drill.Eventually(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	var made api.TokenResult
	eventually(func() error {
		_, err := ask(c.Nodes[0], &made, "token", "create", "--role", "learner")
		return err
	})
	eventually(func() error { // the other node's log has come so far
		var list api.TokenList
		out, err := ask(c.Nodes[1], &list, "token", "list")
		if err != nil {
			return err
		}
		if strings.Contains(out, made.Token) {
			t.Errorf("a token is told: %s", out)
		}
		used := slices.ContainsFunc(list.Tokens, func(k api.TokenInfo) bool { return k.State == api.TokenUsed })
		valid := slices.ContainsFunc(list.Tokens, func(k api.TokenInfo) bool {
			return k.ID == made.ID && k.State == api.TokenValid && k.Role == "learner"
		})
		if !used || !valid {
			return fmt.Errorf("%s was made, and the tokens are %s", made.ID, out)
		}
		return nil
	})
	eventually(func() error {
		var info api.TokenInfo
		out, err := ask(c.Nodes[1], &info, "token", "revoke", made.ID)
		if err == nil && info.State != api.TokenRevoked {
			err = fmt.Errorf("revoked: %s", out)
		}
		return err
	})
	n, err := c.Add(9)
	if err != nil {
		t.Fatal(err)
	}
	eventually(func() error {
		b, _ := os.ReadFile(n.Log()) // there is none before it is started
		switch {
		case strings.Contains(string(b), "the token is refused: it was revoked"):
			return nil
		case n.Running():
			return errors.New("node 9 asks")
		}
		return errors.Join(fmt.Errorf("node 9 says: %s", b), n.Join(made.Token))
	})
	if err := c.Forget(n); err != nil {
		t.Fatal(err)
	}
}

// TestTwoWithDataAndAWitness survive the loss of each of the three: of the master, of the
// witness, and of the other one, which is the master by then.
func TestTwoWithDataAndAWitness(t *testing.T) {
	c := start(t, drill.Options{Nodes: 2})
	w := load(t, c)
	ctx := limit(t, 3*time.Minute)
	witness := bring(t, c, 3, "1 voter, 2 voter, 3 witness", "--role", "witness")
	witness.Witness = true
	serving(t, c)
	tokens(t, c)
	master, err := c.Master(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*drill.Node{master, witness, other(c, master, witness)} {
		began := time.Now()
		if err := n.KillAll(); err != nil {
			t.Fatal(err)
		}
		if err := w.WaitAck(ctx, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		t.Logf("node %d killed: %v without an acknowledgement", n.ID, w.Pause(began).Round(10*time.Millisecond))
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		serving(t, c)
	}
	judge(t, c, w)
}
