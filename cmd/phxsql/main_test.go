package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with, or with -update writes, a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

// phxsql runs a command line.
func phxsql(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, stdio{strings.NewReader(stdin), &o, &e})
	return code, o.String(), e.String()
}

// fakeNode is what the commands speak to.
type fakeNode struct {
	status Status
	err    error
	init   api.InitRequest
	to     string
	asked  any

	settings api.SettingsResult
	history  api.SettingsHistory
}

// Status is short for the tests.
type Status = api.Status

func (f *fakeNode) Status(context.Context) (Status, error) { return f.status, nil }

func (f *fakeNode) Init(_ context.Context, r api.InitRequest) (api.InitResult, error) {
	f.init = r
	res := api.InitResult{Cluster: "7f3a0c", Members: r.Members, User: r.User}
	if r.Password == "" {
		res.Password = "drawn-password"
	}
	return res, f.err
}

func (f *fakeNode) Switchover(_ context.Context, to string) error {
	f.to = to
	return f.err
}

func (f *fakeNode) AddMember(_ context.Context, r api.AddRequest) (api.MembersResult, error) {
	f.asked = r
	return api.MembersResult{Cluster: "c", Members: []api.Member{{ID: r.ID, Role: "learner", Peer: r.Peer, Name: "new"}}}, nil
}

func (f *fakeNode) RemoveMember(_ context.Context, who string, force bool) (api.MembersResult, error) {
	f.asked = api.RemoveRequest{Member: who, Force: force}
	return api.MembersResult{Cluster: "c"}, nil
}

func (f *fakeNode) ChangeRole(_ context.Context, who, role string) (api.MembersResult, error) {
	f.asked = api.RoleRequest{Member: who, Role: role}
	return api.MembersResult{Cluster: "c"}, nil
}

func (f *fakeNode) CreateToken(_ context.Context, r api.TokenRequest) (api.TokenResult, error) {
	f.asked = r
	return api.TokenResult{ID: "0a1b2c3d", Token: "phxsql-join-x", Role: r.Role}, nil
}

func (*fakeNode) Tokens(context.Context) (api.TokenList, error) {
	made, ended := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 10, 5, 0, 0, time.UTC)
	return api.TokenList{Tokens: []api.TokenInfo{
		{ID: "0a1b2c3d", Role: "voter", State: api.TokenUsed, Made: made, By: "ann@db1", Expires: made.Add(time.Hour), Ended: &ended},
		{ID: "4e5f6071", Role: "witness", State: api.TokenValid, Made: made, Expires: made.Add(2 * time.Hour)},
	}}, nil
}

func (f *fakeNode) RevokeToken(_ context.Context, r api.RevokeRequest) (api.TokenInfo, error) {
	f.asked = r
	return api.TokenInfo{ID: r.ID, State: api.TokenRevoked}, nil
}

func (*fakeNode) Redeem(context.Context, string) (api.RedeemResult, error) {
	return api.RedeemResult{}, nil
}

func (f *fakeNode) Settings(context.Context) (api.SettingsResult, error) { return f.settings, f.err }

func (f *fakeNode) SettingsHistory(context.Context) (api.SettingsHistory, error) {
	return f.history, f.err
}

func (f *fakeNode) ChangeSettings(_ context.Context, req api.SettingsRequest) (api.SettingsResult, error) {
	f.asked = req
	return f.settings, f.err
}

func (f *fakeNode) RestartMember(_ context.Context, who string) error {
	f.to = who
	return f.err
}

func (f *fakeNode) RotateAccounts(_ context.Context, req api.RotateRequest) (api.RotateResult, error) {
	return api.RotateResult{At: 7, Done: []paxos.NodeID{1}, Waiting: []paxos.NodeID{2}}, f.err
}

func (*fakeNode) CopyStream(context.Context) (net.Conn, error) { return nil, errors.New("none") }

func (f *fakeNode) LogDump(_ context.Context, from, _ paxos.Instance, fn func(api.LogEntry) error) error {
	for _, e := range sampleEntries() {
		if e.Instance < from {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return f.err
}

// node serves a fake node on loopback and returns a configuration that leads
// there.
func node(t *testing.T, n api.Node) string {
	t.Helper()
	dir := t.TempDir()
	secret, err := identity.CreateSecret(filepath.Join(dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	cred, err := secret.Credentials(1)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	es := telemetry.NewEvents(0)
	log, err := telemetry.NewLogger(&bytes.Buffer{}, telemetry.LogOptions{Events: es})
	if err != nil {
		t.Fatal(err)
	}
	log.Warn("lease lost", telemetry.KeyEpoch, 4)
	s := api.NewServer(api.ServerOptions{Node: n, Events: es, TLS: func() *tls.Config { return api.ServerTLS(cred) }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "node1.toml")
	text := fmt.Sprintf("[node]\nid = 1\n[listen]\nadmin = %q\n[cluster]\nsecret_file = \"secret\"\n", l.Addr())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func ms(n int) api.Seconds { return api.Seconds(time.Duration(n) * time.Millisecond) }

// healthy is a cluster of three that is well.
func healthy() Status {
	st := Status{Cluster: "7f3a0c", Self: 1, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Problems: []api.Problem{}}
	for id := paxos.NodeID(1); id <= 3; id++ {
		m := api.MemberStatus{
			ID: id, Name: fmt.Sprintf("node%d", id), Role: "voter", Alive: true, State: api.StateFollower, Epoch: 4,
			Lease: api.Lease{Holder: 2}, Log: api.Log{First: 1, Chosen: 1204, Applied: 1204},
			Engine: api.Engine{State: "running", Version: "9.7.4", PID: 100 + int(id)},
			RWAddr: fmt.Sprintf("127.0.0.1:61%d6", id), ROAddr: fmt.Sprintf("127.0.0.1:61%d7", id), Problems: []api.Problem{},
		}
		if id == 2 {
			m.State, m.Master, m.Lease.Remaining = api.StateMaster, true, ms(850)
		}
		st.Members = append(st.Members, m)
	}
	return st
}

// failing is the same cluster after its master has died.
func failing() Status {
	st := healthy()
	st.Problems = []api.Problem{{Name: "no_master", Reason: "no member takes writes now", Hint: "see the problems of the members"}}
	m := &st.Members[1]
	m.Alive, m.Heard, m.State, m.Master = false, ms(72_000), api.StateUnknown, false
	m.Problems = []api.Problem{{Name: "unreachable", Reason: "nothing was heard of this member lately", Hint: "start its agent"}}
	m = &st.Members[2]
	m.State, m.Log.Applied, m.LagTransactions, m.LagSeconds = api.StatePromoting, 1190, 14, ms(1300)
	m.Lease = api.Lease{Holder: 3, Remaining: ms(400)}
	m.Engine.State, m.Engine.Reason = "crashed", "signal: killed"
	m.Problems = []api.Problem{{Name: "engine_crashed", Reason: "signal: killed"}}
	return st
}

// takenOver is the cluster just after node 1 took over; what node 2 said last
// has not grown old yet.
func takenOver() Status {
	st := healthy()
	st.Members[1].Heard = ms(1200)
	m := &st.Members[0]
	m.State, m.Master, m.Epoch, m.Lease = api.StateMaster, true, 5, api.Lease{Holder: 1, Remaining: ms(900)}
	return st
}

func sampleEntries() []api.LogEntry {
	yes, no := true, false
	return []api.LogEntry{
		{Instance: 1, Ballot: "1.1", Kind: "membership", Bytes: 90, Detail: "cluster 7f3a0c 1=h:6118 2=h:6128"},
		{Instance: 2, Ballot: "1.1", Kind: "epoch", Bytes: 56, Epoch: 1, Node: 1, ServerUUID: "aa000000-0000-0000-0000-000000000000"},
		{Instance: 3, Ballot: "1.1", Kind: "transactions", Bytes: 512, Epoch: 1, Node: 1, Void: &no, Transactions: []api.LogTxn{{GTID: "aa:1", Bytes: 200}, {GTID: "aa:2", Bytes: 212}}},
		{Instance: 4, Ballot: "2.2", Kind: "noop"},
		{Instance: 5, Ballot: "2.2", Kind: "chunk", Bytes: 1 << 20, Epoch: 1, Node: 1, Void: &yes, Transactions: []api.LogTxn{{GTID: "aa:3", Bytes: 9 << 20}}, Detail: "bytes 0 to 1048576"},
		{Instance: 6, Ballot: "2.2", Kind: "transactions", Bytes: 4000, Epoch: 2, Node: 2, Void: &no, Transactions: []api.LogTxn{{GTID: "bb:1"}, {GTID: "bb:2"}, {GTID: "bb:3"}, {GTID: "bb:4"}, {GTID: "bb:5"}, {GTID: "bb:6"}}},
		{Instance: 7, Ballot: "2.2", Kind: "chunk", Bytes: 77, Epoch: 2, Node: 2, Void: &no, Last: true, Transactions: []api.LogTxn{{GTID: "bb:7", Bytes: 9 << 20}}, Detail: "bytes 9437107 to 9437184"},
		{Instance: 8, Ballot: "2.2", Kind: "unreadable", Bytes: 11, Detail: "decode value: cut short"},
	}
}

func TestStatusOutput(t *testing.T) {
	blank := Status{Self: 3, Members: []api.MemberStatus{{ID: 3, Alive: true, State: api.StateBlank, Engine: api.Engine{State: "none"}}}}
	for name, st := range map[string]Status{"healthy": healthy(), "failing": failing(), "taken_over": takenOver(), "blank": blank} {
		cfg := node(t, &fakeNode{status: st})
		code, out, errOut := phxsql(t, "", "status", "--config", cfg)
		if code != 0 || errOut != "" {
			t.Errorf("%s: exit %d: %s", name, code, errOut)
		}
		golden(t, "status_"+name+".golden", out)
		_, out, _ = phxsql(t, "", "status", "--config", cfg, "-o", "json")
		golden(t, "status_"+name+".json.golden", out)
	}
}

func TestStatusExitCode(t *testing.T) {
	for want, st := range map[int]Status{exitDone: healthy(), exitNotWell: failing()} {
		code, _, errOut := phxsql(t, "", "status", "--exit-code", "--config", node(t, &fakeNode{status: st}))
		if code != want || errOut != "" {
			t.Errorf("exit %d, want %d: %s", code, want, errOut)
		}
	}
}

func TestStatusByFolder(t *testing.T) {
	cfg := node(t, &fakeNode{status: healthy()})
	if code, out, errOut := phxsql(t, "", "status", "--config", filepath.Dir(cfg)); code != 0 || !strings.Contains(out, "master node2") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	cfg := node(t, &fakeNode{status: healthy()})
	ctx, cancel := context.WithCancel(t.Context())
	var out shoutingBuffer
	out.when, out.do = "master node2", cancel
	if code := run(ctx, []string{"status", "--watch", "--config", cfg}, stdio{nil, &out, &out}); code != 0 {
		t.Errorf("exit %d: %s", code, out.String())
	}
}

// shoutingBuffer calls do when it has been given a text.
type shoutingBuffer struct {
	bytes.Buffer
	when string
	do   func()
}

func (b *shoutingBuffer) Write(p []byte) (int, error) {
	n, err := b.Buffer.Write(p)
	if strings.Contains(b.String(), b.when) {
		b.do()
	}
	return n, err
}

func TestLogDumpOutput(t *testing.T) {
	cfg := node(t, &fakeNode{})
	for name, args := range map[string][]string{"log_dump.golden": nil, "log_dump.json.golden": {"-o", "json", "--from", "5"}} {
		code, out, errOut := phxsql(t, "", append([]string{"log", "dump", "--config", cfg}, args...)...)
		if code != 0 || errOut != "" {
			t.Errorf("exit %d: %s", code, errOut)
		}
		golden(t, name, out)
	}
	cfg = node(t, &fakeNode{err: api.Refused("trimmed", "instance 1 is gone", "start at 7")})
	code, out, errOut := phxsql(t, "", "log", "dump", "--config", cfg)
	if code != exitFailed || errOut != "error: instance 1 is gone\nhint: start at 7\n" || !strings.Contains(out, "aa:2") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
}

func TestEvents(t *testing.T) {
	code, out, errOut := phxsql(t, "", "events", "--config", node(t, &fakeNode{}))
	if ok, _ := regexp.MatchString(`^[-0-9]+ [:.0-9]+  warn   lease lost  epoch=4\n$`, out); code != 0 || !ok {
		t.Errorf("exit %d: %q %s", code, out, errOut)
	}
}

func TestSwitchover(t *testing.T) {
	n := &fakeNode{status: healthy()}
	code, out, errOut := phxsql(t, "", "switchover", "--to", "node2", "--config", node(t, n))
	if ok, _ := regexp.MatchString(`^the master is node2 \(took \d+m?s\)\n$`, out); code != 0 || n.to != "node2" || !ok {
		t.Errorf("exit %d: %q %s", code, out, errOut)
	}
	n.err = api.NotFound("no_such_member", `no member is named "node9"`, "members: node1, node2, node3")
	code, out, errOut = phxsql(t, "", "switchover", "--to", "node9", "--config", node(t, n))
	if want := "error: no member is named \"node9\"\nhint: members: node1, node2, node3\n"; code != exitFailed || out != "" || errOut != want {
		t.Errorf("exit %d: %q %q", code, out, errOut)
	}
}

func TestCopyIsShown(t *testing.T) {
	st := healthy()
	st.Members[0].Log.Bytes, st.Members[0].Log.HeldBy = 3<<30, []paxos.NodeID{2, 3}
	st.Members[1].Copy = &api.Copy{Phase: "copying", Donor: 3, Bytes: 300 << 20, Total: 573 << 20, Rate: 91 << 20, Remaining: api.Seconds(3 * time.Second)}
	st.Members[2].Copy = &api.Copy{Phase: "applying", Donor: 1, Bytes: 5 << 20}
	var b strings.Builder
	renderStatus(&b, st)
	st.Members[2].Alive, st.Members[2].Heard = false, api.Seconds(4*time.Second)
	st.Members[1].Copy = &api.Copy{Phase: "executing", Bytes: 1 << 20, Total: 4 << 20, Rate: 1 << 20, Why: "a copy would take longer"}
	renderStatus(&b, st)
	st.Members[1].Copy = &api.Copy{Phase: "proving", Rows: 100, RowsTotal: 300, Remaining: api.Seconds(2 * time.Second)}
	renderStatus(&b, st)
	for _, want := range []string{
		"node2: gets the data by executing the log: 1.0 MiB of about 4.0 MiB, 1.0 MiB/s (a copy would take longer)\n",
		"node2: compares its new data with the master's: 100 of about 300 rows, 2.0s left\n",
		"node2: copies the data of member 3: 300 MiB of about 573 MiB, 91 MiB/s, 3.0s left\n",
		"node3: has the data of member 1 (5.0 MiB), and applies the rest of the log\n",
		"node1 keeps its log (3.0 GiB) for member 2 (its data are being filled), member 3 (not heard of for 4.0s)\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// A node on its way says each step once, with what is in its way, and that it has
// arrived.
func TestProgressOfAJoin(t *testing.T) {
	st := healthy()
	m := &st.Members[1]
	for _, c := range []struct {
		change func()
		want   progress
	}{
		{func() {
			m.State, m.Problems = api.StateJoining, []api.Problem{{Name: "joining"}, {Name: "member_unreachable", Reason: "node 2 does not answer"}}
		}, progress{"asks", "node2 (member_unreachable: node 2 does not answer): asks to be taken in", false}},
		{func() {
			m.State, m.Role, m.Problems, m.LagTransactions = api.StateStarting, "learner", nil, 7
			m.Copy = &api.Copy{Phase: "applying", Donor: 1, Bytes: 5 << 20}
		}, progress{"applying", "node2: has the data of member 1 (5.0 MiB), and applies the rest of the log, lag 7 trx", false}},
		{func() { m.Copy, m.State, m.LagTransactions = nil, api.StateFollower, 0 }, progress{"follower", "node2: learner, follower", false}},
		{func() { m.Role = "voter" }, progress{"done", "node2 is a voter of cluster " + st.Cluster + " now: follower", true}},
	} {
		c.change()
		if got := progressOf(st, 2, "voter"); got != c.want {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
}

func TestMembers(t *testing.T) {
	n := &fakeNode{status: healthy()}
	cfg := node(t, n)
	for _, c := range []struct {
		args string
		want any
	}{
		{"member add 4=db4:3308 --role learner", api.AddRequest{ID: 4, Peer: "db4:3308", Role: "learner"}},
		{"member replace node2 --with 5=db5", api.AddRequest{ID: 5, Peer: "db5:3308", Role: "voter", Replace: "node2"}},
		{"member remove 2", api.RemoveRequest{Member: "2"}},
		{"member remove 2 --force-lose-majority", api.RemoveRequest{Member: "2", Force: true}},
		{"member role 2 learner", api.RoleRequest{Member: "2", Role: "learner"}},
		{"token create --lifetime 10m", api.TokenRequest{Lifetime: api.Seconds(10 * time.Minute), By: whoAsks()}},
		{"token create --role witness", api.TokenRequest{Lifetime: api.Seconds(time.Hour), Role: "witness", By: whoAsks()}},
		{"token revoke 0a1b2c3d", api.RevokeRequest{ID: "0a1b2c3d", By: whoAsks()}},
	} {
		n.asked = nil
		code, _, errOut := phxsql(t, "", append(strings.Fields(c.args), "--config", cfg)...)
		if code != 0 || n.asked != c.want {
			t.Errorf("%s: exit %d, asked %+v, %s", c.args, code, n.asked, errOut)
		}
	}
	code, out, errOut := phxsql(t, "", "member", "add", "2=db2", "--wait", "--config", cfg)
	if code != 0 || !strings.HasPrefix(errOut, "node2 is a voter of cluster ") || !strings.HasPrefix(out, "ID  NAME") {
		t.Errorf("exit %d: %q %s", code, out, errOut)
	}
	code, out, errOut = phxsql(t, "", "token", "create", "--role", "learner", "--config", cfg)
	if code != 0 || out != "phxsql-join-x\n" || !strings.Contains(errOut, "token 0a1b2c3d lets one learner in, until ") {
		t.Errorf("exit %d: %q %s", code, out, errOut)
	}
	code, out, errOut = phxsql(t, "", "token", "list", "--config", cfg)
	if code != 0 || !strings.HasPrefix(out, "ID        ROLE     STATE  ENDED                UNTIL ") || !strings.Contains(out, "\n4e5f6071  witness  valid  -  ") || strings.Contains(out, "phxsql-join") {
		t.Errorf("exit %d: %q %s", code, out, errOut)
	}
	code, out, errOut = phxsql(t, "", "member", "list", "--config", cfg)
	if code != 0 || !strings.HasPrefix(out, "ID  NAME   ROLE   PEER\n1   node1  voter") {
		t.Errorf("exit %d: %q %s", code, out, errOut)
	}
}

// What cannot work is refused before anything is written.
func TestJoinRefusals(t *testing.T) {
	cfg := node(t, &fakeNode{})
	bare := filepath.Join(t.TempDir(), "node.toml")
	if err := os.WriteFile(bare, []byte("[node]\nid = 9\ndata_dir = \"d\"\n[cluster]\nsecret_file = \"s\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"join --seed a:1":                                   "no configuration is named",
		"join --config " + cfg:                              "no member is named",
		"join --seed a:1 --role king --config " + cfg:       `--role is "king"`,
		"join --seed a:1 --config " + bare:                  "no secret file and no token",
		"join --seed a:1 --token nonsense --config " + bare: "this is not a join token",
	} {
		code, _, errOut := phxsql(t, "", strings.Fields(args)...)
		if code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d: %s", args, code, errOut)
		}
	}
}

func TestInit(t *testing.T) {
	n := &fakeNode{}
	cfg := node(t, n)
	code, out, errOut := phxsql(t, "", "init", "--config", cfg, "--members", "1=a:7001,2=b:7002,4=[::1]:7004")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	golden(t, "init.golden", out)
	want := api.InitRequest{User: "app", Members: []api.InitMember{{ID: 1, Peer: "a:7001"}, {ID: 2, Peer: "b:7002"}, {ID: 4, Peer: "[::1]:7004"}}}
	if d := cmp.Diff(want, n.init); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	code, out, errOut = phxsql(t, "s3cret-password\n", "init", "--config", cfg, "--members", "10.0.0.1,10.0.0.2,::1", "--user", "me", "--password-stdin")
	if code != 0 || strings.Contains(out, "password") {
		t.Fatalf("exit %d: %s%s", code, out, errOut)
	}
	want = api.InitRequest{User: "me", Password: "s3cret-password",
		Members: []api.InitMember{{ID: 1, Peer: "10.0.0.1:3308"}, {ID: 2, Peer: "10.0.0.2:3308"}, {ID: 3, Peer: "[::1]:3308"}}}
	if d := cmp.Diff(want, n.init); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestUsageErrors(t *testing.T) {
	cfg := node(t, &fakeNode{})
	var b strings.Builder
	for _, args := range [][]string{
		{"stauts"}, {"status", "extra"}, {"status", "--colour"}, {"status", "-o", "xml", "--config", cfg},
		{"status", "--watch", "--interval", "1ms", "--config", cfg},
		{"init", "--config", cfg}, {"init", "--config", cfg, "--members", "0=a:1"}, {"init", "--config", cfg, "--members", "1=a:1,b:2"},
		{"init", "--config", cfg, "--members", "1=:3308"}, {"init", "--config", cfg, "--members", "a", "--password-stdin"},
		{"init", "--config", cfg, "--members", "a", "--password-stdin", "--password-file", "x"},
		{"log", "dump", "--from", "9", "--to", "3"}, {"log", "tail"}, {"config", "check"},
		{"engine", "exec"}, {"status", "--config", t.TempDir()},
	} {
		code, out, errOut := phxsql(t, "", args...)
		if code != exitUsage || out != "" {
			t.Errorf("%v: exit %d, %q", args, code, out)
		}
		line := "$ phxsql " + strings.Join(args, " ") + "\n" + errOut
		line = strings.ReplaceAll(line, cfg, "node.toml")
		b.WriteString(regexp.MustCompile(`/\S*/\d{3}\b`).ReplaceAllString(line, "DIR"))
	}
	golden(t, "usage_errors.golden", b.String())
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	code, _, errOut := phxsql(t, "", "status", "--config", node(t, &fakeNode{}), "--addr", addr)
	if code != exitUnreachable || !strings.Contains(errOut, addr) || !strings.Contains(errOut, "hint: is the node running?") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	// Ports that are not the admin port: a web server's, and MySQL's, which greets.
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	greets, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer greets.Close()
	go func() {
		for {
			c, err := greets.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("J\x00\x00\x00\x0a8.4.0\x00"))
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	for _, addr := range []string{web.Listener.Addr().String(), greets.Addr().String()} {
		code, _, errOut = phxsql(t, "", "status", "--config", node(t, &fakeNode{}), "--addr", addr)
		if code != exitUnreachable || !strings.Contains(errOut, "hint: it is not the admin port that answers there") {
			t.Errorf("exit %d: %s", code, errOut)
		}
	}
}

func TestConfigCommands(t *testing.T) {
	if code, out, _ := phxsql(t, "", "config", "sample"); code != 0 || out != config.Sample {
		t.Errorf("exit %d: %s", code, out)
	}
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("[node]\nid = 1\ndata_dri = \"x\"\n[logging]\nlevel = 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := phxsql(t, "", "config", "check", bad)
	if code != exitUsage || !strings.Contains(errOut, `did you mean "node.data_dir"?`) || !strings.Contains(errOut, "logging.level") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	good := filepath.Join(t.TempDir(), "good.toml")
	text := fmt.Sprintf("[node]\nid = 1\ndata_dir = \"data\"\n[cluster]\nsecret_file = %q\n", filepath.Join(filepath.Dir(good), "s"))
	if err := os.WriteFile(good, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut = phxsql(t, "", "config", "check", "--running", good); code != exitUsage || !strings.Contains(errOut, "does not exist") {
		t.Errorf("without a secret: exit %d: %s", code, errOut)
	}
	if code, out, errOut := phxsql(t, "", "secret", "create", filepath.Join(filepath.Dir(good), "s")); code != 0 || !strings.Contains(out, "fingerprint") {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	if code, out, errOut := phxsql(t, "", "config", "check", "--running", good); code != 0 || !strings.HasSuffix(out, "good.toml: fine\n") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	if code, _, errOut := phxsql(t, "", "secret", "create", filepath.Join(filepath.Dir(good), "s")); code != exitUsage || !strings.Contains(errOut, "exists already") {
		t.Errorf("a second secret: exit %d: %s", code, errOut)
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := phxsql(t, "", "version"); code != 0 || !strings.HasPrefix(out, "phxsql ") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	code, out, _ := phxsql(t, "")
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	for _, name := range []string{"server", "init", "status", "switchover", "join", "member", "token", "log", "events", "demo", "config", "engine", "secret", "version"} {
		if !strings.Contains(out, "\n  "+name+" ") {
			t.Errorf("no %s in the help", name)
		}
	}
}

func TestPrintErrorFindsHints(t *testing.T) {
	for want, err := range map[string]error{
		"error: no room\n":                     errors.New("no room"),
		"error: no room\nhint: make some\n":    errors.New("no room (hint: make some)"),
		"error: a: no room\nhint: buy disks\n": fmt.Errorf("a: %w", &hintError{errors.New("no room"), "buy disks"}),
	} {
		var b bytes.Buffer
		printError(&b, err)
		if b.String() != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	}
}

func TestConfigOfTheCluster(t *testing.T) {
	at := time.Date(2026, 11, 22, 20, 0, 0, 0, time.Local)
	n := &fakeNode{
		settings: api.SettingsResult{At: 7, Waiting: []paxos.NodeID{3}, Settings: []api.Setting{
			{Key: "log.keep", Value: "1GiB", Default: "256MiB", From: "cluster", File: "2GiB", Instance: 7, Changed: &at, By: "ann@db1"},
			{Key: "log.limit", Value: "8GiB", Default: "8GiB", From: "default"},
		}},
		history: api.SettingsHistory{Changes: []api.SettingsChange{
			{Instance: 7, Time: at, By: "ann@db1", Set: map[string]string{"log.keep": "1GiB"}, Unset: []string{"log.limit"}},
		}},
	}
	cfg := node(t, n)
	code, out, errOut := phxsql(t, "", "config", "set", "log.keep", "1GiB", "--config", cfg)
	if code != exitDone {
		t.Fatal(errOut)
	}
	if req := n.asked.(api.SettingsRequest); req.Set["log.keep"] != "1GiB" || req.By == "" {
		t.Errorf("asked for %+v", req)
	}
	_, shown, _ := phxsql(t, "", "config", "show", "--config", cfg)
	_, history, _ := phxsql(t, "", "config", "history", "--config", cfg)
	golden(t, "config.txt", out+"--\n"+shown+"--\n"+history)
	for _, args := range [][]string{{"log.keep"}, {}, {"log.keep", "1GiB", "log.keep", "2GiB"}} {
		if code, _, _ := phxsql(t, "", append([]string{"config", "set", "--config", cfg}, args...)...); code != exitUsage {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
}

func TestRestartOrder(t *testing.T) {
	st := healthy()
	todo, err := restartOrder(st)
	if err != nil {
		t.Fatal(err)
	}
	if last := todo[len(todo)-1]; len(todo) != len(st.Members) || !isMaster(st, last) {
		t.Errorf("order %+v", todo)
	}
	for i := range st.Members {
		bad := healthy()
		bad.Members[i].Alive, bad.Members[i].Master = false, false
		if _, err := restartOrder(bad); err == nil {
			t.Errorf("with member %d down it goes on", bad.Members[i].ID)
		}
	}
	late := healthy()
	for i := range late.Members {
		if late.Members[i].State == api.StateFollower {
			late.Members[i].LagTransactions = rollingLag + 1
		}
	}
	if _, err := restartOrder(late); err == nil {
		t.Error("with followers far behind it goes on")
	}
}

// What would start after a restart is what lies on the disk.
func TestSelfIsChecked(t *testing.T) {
	dir := t.TempDir()
	s := self{program: filepath.Join(dir, "phxsql"), config: filepath.Join(dir, "node.toml")}
	if err := s.check(t.Context()); err == nil {
		t.Error("there is no program")
	}
	script := "#!/bin/sh\necho \"$@\" > " + dir + "/args; exit 3\n"
	if err := os.WriteFile(s.program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.check(t.Context()); err == nil {
		t.Error("the program refuses the configuration")
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "args")); string(b) != "config check --running "+s.config+"\n" {
		t.Errorf("called with %q", b)
	}
}

// A join takes the role that its token was made for; another one is a mistake.
func TestJoinTakesTheTokensRole(t *testing.T) {
	for _, c := range []struct {
		role  string
		named bool
		token string
		want  string // empty: refused
	}{
		{"voter", false, "", "voter"}, {"voter", false, "witness", "witness"}, {"learner", true, "", "learner"},
		{"witness", true, "witness", "witness"}, {"voter", true, "witness", ""},
	} {
		o := joinOptions{role: c.role, named: c.named}
		err := o.takeRole(identity.Token{Role: c.token})
		if (err == nil) != (c.want != "") || err == nil && o.role != c.want {
			t.Errorf("%+v: %q, %v", c, o.role, err)
		}
	}
}

func TestSettingPairs(t *testing.T) {
	for args, want := range map[string]string{
		"a.b 1": "map[a.b:1]", "a.b 1 c.d 2": "map[a.b:1 c.d:2]", "a.b=1": "map[a.b:1]", "a.b=1 c.d=2": "map[a.b:1 c.d:2]", "a.b x=y": "map[a.b:x=y]",
		"": "", "a.b": "", "a.b=1 c.d": "", "a.b=1 a.b=2": "", "a.b 1 a.b 2": "",
	} {
		got, err := settingPairs(strings.Fields(args))
		if err == nil != (want != "") || err == nil && fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v", args, got, err)
		}
	}
}
