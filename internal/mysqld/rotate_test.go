package mysqld

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
)

const (
	secretA = "00112233445566778899aabbccddeeff"
	secretB = "ffeeddccbbaa99887766554433221100"
)

// rotated checks that only the present passwords are taken.
func rotated(t *testing.T, s *Server, want string, old ...string) {
	t.Helper()
	if s.password() != want {
		t.Fatalf("the agent uses %s", s.password())
	}
	for user, password := range map[string]string{AgentUser: want, CopyUser: copySecret(want)} {
		if err := s.accepts(bounded(t), user, password); err != nil {
			t.Error(err)
		}
	}
	for _, o := range old {
		if s.accepts(bounded(t), AgentUser, o) == nil || s.accepts(bounded(t), CopyUser, copySecret(o)) == nil {
			t.Errorf("the old password %s is still taken", o)
		}
	}
	for _, name := range []string{secretName, accountsName} {
		if b, err := os.ReadFile(s.cfg.path(name)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s does not hold the new password: %v", name, err)
		}
	}
}

func rotate(t *testing.T, s *Server, secret string) {
	t.Helper()
	if err := s.Rotate(bounded(t), secret); err != nil {
		t.Fatal(err)
	}
	if err := s.ForgetOld(bounded(t)); err != nil {
		t.Fatal(err)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	first := s.password()
	if err := s.Rotate(bounded(t), secretA); !errors.Is(err, ErrNotNow) {
		t.Errorf("a server between two roles: %v", err)
	}
	set := executed(t, s)

	// A replica stays one, and nothing is written that others could see.
	if err := s.StartReplica(bounded(t), Source{Host: "127.0.0.1", Port: 1, User: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	rotate(t, s, secretA)
	rotated(t, s, secretA, first)
	if ro, err := s.ReadOnly(bounded(t)); err != nil || !ro {
		t.Errorf("the replica is writable: %v", err)
	}
	if got := executed(t, s); got != set {
		t.Errorf("executed %s, was %s", got, set)
	}

	// The agent gets in at every moment.
	if err := s.StopReplica(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	writable(t, s, true)
	ctx, stop := context.WithCancel(bounded(t))
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for ctx.Err() == nil {
				user, password := s.Agent()
				if err := s.accepts(bounded(t), user, password); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := s.Rotate(bounded(t), secretB); err != nil {
		t.Error(err)
	}
	stop()
	clients.Wait()
	if err := s.accepts(bounded(t), AgentUser, secretA); err != nil {
		t.Errorf("the old password is forgotten too soon: %v", err)
	}
	rotate(t, s, secretB)
	rotated(t, s, secretB, first, secretA)
	if got := executed(t, s); got != set {
		t.Errorf("executed %s, was %s", got, set)
	}
}

// A rotation that ended between two steps is completed: by itself, and by a start.
func TestRotateGoesOn(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	writable(t, s, true)
	first := s.password()
	half := func(secret string) {
		must(t, s, "ALTER USER 'phxsql_agent'@'localhost' IDENTIFIED BY '"+secret+"' RETAIN CURRENT PASSWORD")
	}
	half(secretA)
	rotate(t, s, secretA)
	rotated(t, s, secretA, first)
	half(secretB)
	if err := s.keepSecret(secretB); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	rotated(t, s, secretB, first, secretA)
	if err := s.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Rotate(bounded(t), secretA); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	rotated(t, s, secretA, secretB)
	if err := s.Rotate(bounded(t), "x'; DROP"); err == nil {
		t.Error("what is no password is taken")
	}
}
