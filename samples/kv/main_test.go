package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/samples/internal/run"
	"github.com/phxsql/phxsql/samples/internal/runtest"
)

// shop is a running sample and a client of it.
type shop struct {
	t     *testing.T
	o     options
	http  []string
	stop  context.CancelFunc
	ended chan error
}

func open(t *testing.T) *shop {
	addrs := runtest.Addrs(t, 6)
	s := &shop{t: t, http: addrs[3:], o: options{
		Flags: run.Flags{Dir: t.TempDir(), Peers: strings.Join(addrs[:3], ",")}, http: strings.Join(addrs[3:], ","), every: 10,
	}}
	s.start()
	return s
}

func (s *shop) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.ended = cancel, make(chan error, 1)
	go func() { s.ended <- serve(ctx, s.o) }()
}

func (s *shop) end() {
	s.stop()
	if err := <-s.ended; err != nil {
		s.t.Fatal(err)
	}
}

// do sends a request until it is answered by somebody who leads.
func (s *shop) do(method, addr, path, body string) (code int, answer string) {
	s.t.Helper()
	runtest.Until(s.t, "answer to "+method+" "+path, func() bool {
		r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		code, answer = resp.StatusCode, string(b)
		return err == nil && code != http.StatusServiceUnavailable && code != http.StatusGatewayTimeout && code != http.StatusTemporaryRedirect
	})
	return code, answer
}

func (s *shop) want(method, addr, path, body string, code int, answer string) {
	s.t.Helper()
	if c, a := s.do(method, addr, path, body); c != code || !strings.Contains(a, answer) {
		s.t.Fatalf("%s %s: %d %q, want %d %q", method, path, c, a, code, answer)
	}
}

func TestKeysAreReplicatedAndSurviveARestart(t *testing.T) {
	s := open(t)
	for i := range 60 {
		s.want("PUT", s.http[i%3], fmt.Sprintf("/key%d", i%20), fmt.Sprintf("value%d", i), 200, "instance")
	}
	for _, a := range s.http { // every node answers, the leader's way
		s.want("GET", a, "/key7", "", 200, "value47")
		s.want("GET", a, "/nothing", "", 404, "no such key")
	}
	s.want("PUT", s.http[0], "/key8?if=other", "never", 412, `"before":"value48"`)
	s.want("PUT", s.http[1], "/key8?if=value48", "swapped", 200, `"before":"value48"`)
	s.want("PUT", s.http[2], "/key8?if=", "never", 412, `"before":"swapped"`)
	s.want("PUT", s.http[2], "/fresh?if=", "first", 200, `"before":""`)
	s.want("DELETE", s.http[0], "/key7", "", 200, `"before":"value47"`)
	for id := 1; id <= 3; id++ {
		runtest.Until(t, "snapshot", func() bool {
			b, err := os.ReadFile(filepath.Join(s.o.Dir, fmt.Sprint(id), "snapshot.json"))
			var snap snapshot
			return err == nil && json.Unmarshal(b, &snap) == nil && snap.Applied > 40
		})
	}
	s.end()
	s.start()
	defer s.end()
	s.want("GET", s.http[1], "/key7", "", 404, "no such key")
	s.want("GET", s.http[2], "/key6", "", 200, "value46")
	runtest.Until(t, "state of a follower", func() bool {
		for _, a := range s.http {
			if _, v := s.do("GET", a, "/key6?stale", ""); v != "value46" {
				return false
			}
		}
		return true
	})
	s.want("GET", s.http[0], "/", "", 200, "applied")
}

// TestANodeThatWasAwayFetchesASnapshot: each node is a sample of its own; the log that
// one of them lacks is trimmed meanwhile.
func TestANodeThatWasAwayFetchesASnapshot(t *testing.T) {
	all := open3(t)
	value := strings.Repeat("v", 200<<10) // what is in memory of the log is soon gone
	put := func(from, to int) {
		for i := from; i < to; i++ {
			all[0].want("PUT", all[0].http[0], fmt.Sprintf("/key%d", i%5), fmt.Sprint(i, value), 200, "instance")
		}
	}
	put(0, 5)
	all[2].end()
	put(5, 60)
	runtest.Until(t, "trimmed logs", func() bool {
		put(60, 65)
		return all[0].status(0).First > 40 && all[0].status(1).First > 40
	})
	all[2].start()
	runtest.Until(t, "restored snapshot", func() bool {
		st := all[2].status(2)
		return st.Restored > 0 && st.Lacking == 0 && st.Applied == all[0].status(0).Applied
	})
	if _, v := all[2].do("GET", all[2].http[2], "/key4?stale", ""); v != "64"+value {
		t.Fatalf("after the snapshot the node has %.10q", v)
	}
	all[1].end() // from here on nothing is chosen without the node that was away
	put(65, 70)
	all[1].start()
	all[2].want("GET", all[2].http[2], "/key3", "", 200, "68"+value)
	for _, s := range all {
		s.end()
	}
}

// open3 starts three samples of one node each.
func open3(t *testing.T) (all []*shop) {
	addrs := runtest.Addrs(t, 6)
	dir := t.TempDir()
	for id := 1; id <= 3; id++ {
		s := &shop{t: t, http: addrs[3:], o: options{
			Flags: run.Flags{Dir: dir, Node: id, Peers: strings.Join(addrs[:3], ",")}, http: strings.Join(addrs[3:], ","), every: 10, keep: 20,
		}}
		s.start()
		all = append(all, s)
	}
	return all
}

// state is what a node says about itself.
type state struct {
	First, Applied, Lacking uint64
	Restored                int
}

func (s *shop) status(node int) (st state) {
	if _, answer := s.do("GET", s.http[node], "/", ""); json.Unmarshal([]byte(answer), &st) != nil {
		s.t.Fatalf("status of node %d: %s", node+1, answer)
	}
	return st
}

func TestSnapshotsReplaceOneAnother(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		s.Apply(1, []byte(fmt.Sprintf(`{"key":"k","value":"%d"}`, i)))
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		again, err := openStore(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := again.get("k"); v != fmt.Sprint(i) || again.Applied() != 1 {
			t.Fatalf("snapshot %d has %q at %d", i, v, again.Applied())
		}
	}
	if err := os.WriteFile(s.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, ""); err == nil {
		t.Fatal("a damaged snapshot is taken for an empty store")
	}
}
