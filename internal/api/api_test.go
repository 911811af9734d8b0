package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// fakeNode answers with what the test put into it.
type fakeNode struct {
	mu       sync.Mutex
	status   Status
	err      error
	init     InitRequest
	to       string
	entries  []LogEntry
	from, up paxos.Instance
	dumpErr  error
}

func (f *fakeNode) Status(context.Context) (Status, error) { return f.status, f.err }

func (f *fakeNode) Init(_ context.Context, r InitRequest) (InitResult, error) {
	f.init = r
	return InitResult{Cluster: "c1", Members: r.Members, User: r.User, Password: "drawn"}, f.err
}

func (f *fakeNode) Switchover(_ context.Context, to string) error {
	f.to = to
	return f.err
}

func (f *fakeNode) AddMember(_ context.Context, r AddRequest) (MembersResult, error) {
	return MembersResult{Cluster: "c", Members: []Member{{ID: r.ID, Role: r.Role, Peer: r.Peer}}}, f.err
}

func (f *fakeNode) RemoveMember(_ context.Context, who string, force bool) (MembersResult, error) {
	return MembersResult{Cluster: fmt.Sprint(who, force)}, f.err
}

func (f *fakeNode) ChangeRole(_ context.Context, who, role string) (MembersResult, error) {
	return MembersResult{Cluster: who + " " + role}, f.err
}

func (f *fakeNode) CreateToken(context.Context, TokenRequest) (TokenResult, error) {
	return TokenResult{Token: "t"}, f.err
}

func (f *fakeNode) Tokens(context.Context) (TokenList, error) { return TokenList{}, f.err }

func (f *fakeNode) RevokeToken(_ context.Context, r RevokeRequest) (TokenInfo, error) {
	return TokenInfo{ID: r.ID, State: TokenRevoked}, f.err
}

func (f *fakeNode) Redeem(_ context.Context, token string) (RedeemResult, error) {
	return RedeemResult{Secret: token}, f.err
}

func (f *fakeNode) Settings(context.Context) (SettingsResult, error) { return SettingsResult{}, f.err }

func (f *fakeNode) SettingsHistory(context.Context) (SettingsHistory, error) {
	return SettingsHistory{}, f.err
}

func (f *fakeNode) ChangeSettings(context.Context, SettingsRequest) (SettingsResult, error) {
	return SettingsResult{}, f.err
}

func (f *fakeNode) RestartMember(_ context.Context, who string) error {
	return f.err
}

func (f *fakeNode) RotateAccounts(_ context.Context, req RotateRequest) (RotateResult, error) {
	return RotateResult{At: 7, Done: []paxos.NodeID{1}, Waiting: []paxos.NodeID{2}}, f.err
}

func (*fakeNode) CopyStream(context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	go func() {
		defer b.Close()
		_, _ = io.Copy(b, io.LimitReader(b, 4)) // says the same once
	}()
	return a, nil
}

func (f *fakeNode) LogDump(_ context.Context, from, to paxos.Instance, fn func(LogEntry) error) error {
	f.mu.Lock()
	f.from, f.up = from, to
	f.mu.Unlock()
	for _, e := range f.entries {
		if err := fn(e); err != nil {
			return err
		}
	}
	return f.dumpErr
}

func credentials(t *testing.T, secret string, node paxos.NodeID) *identity.Credentials {
	t.Helper()
	s, err := identity.NewSecret([]byte(strings.Repeat(secret, 40)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Credentials(node)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve starts a server over TLS and returns its address. It is stopped, and must
// end, with the test.
func serve(t *testing.T, n Node, events *telemetry.Events, g prometheus.Gatherer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cred := credentials(t, "a", 1)
	s := NewServer(ServerOptions{Node: n, Events: events, Metrics: g, TLS: func() *tls.Config { return ServerTLS(cred) }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func client(t *testing.T, addrs ...string) *Client {
	c := NewClient(addrs, ClientTLS(credentials(t, "a", 7)))
	t.Cleanup(c.Close)
	return c
}

func TestStatusThereAndBack(t *testing.T) {
	want := Status{
		Cluster: "c1", Self: 1, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Members: []MemberStatus{{
			ID: 1, Name: "node1", Role: "voter", Alive: true, State: StateMaster, Master: true, Epoch: 3,
			Lease: Lease{Holder: 1, Remaining: Seconds(850 * time.Millisecond)}, Log: Log{First: 1, Chosen: 9, Applied: 9},
			Engine: Engine{State: "running", Version: "MySQL 9.7.4", GTIDExecuted: "uuid:1-9", PID: 42}, RWAddr: "h:1",
		}},
		Problems: []Problem{{"no_quorum", "one of three", "start the others"}},
	}
	addr := serve(t, &fakeNode{status: want}, nil, nil)
	got, err := client(t, addr).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestErrorsKeepNameHintAndCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Problem
		code int
	}{
		{Refused("not_caught_up", "node 3 lags", "wait"), Problem{"not_caught_up", "node 3 lags", "wait"}, 409},
		{fmt.Errorf("switch over: %w", Unavailable("no_master", "nobody leads", "")), Problem{"no_master", "nobody leads", ""}, 503},
		{errors.New("disk on fire"), Problem{"internal", "disk on fire", ""}, 500},
		{context.DeadlineExceeded, Problem{"timeout", "context deadline exceeded", "the outcome is unknown: look at the status, then try again"}, 504},
	} {
		addr := serve(t, &fakeNode{err: c.err}, nil, nil)
		_, err := client(t, addr).Switchover(t.Context(), "3")
		var e *Error
		if !errors.As(err, &e) || e.Problem != c.want || e.Status != c.code {
			t.Errorf("%v came as %+v", c.err, err)
		}
		if e != nil && HintOf(err) != c.want.Hint {
			t.Errorf("hint %q", HintOf(err))
		}
	}
}

func TestInit(t *testing.T) {
	n := &fakeNode{}
	addr := serve(t, n, nil, nil)
	req := InitRequest{Members: []InitMember{{ID: 1, Peer: "a:1"}, {ID: 2, Peer: "b:1"}}, User: "app"}
	res, err := client(t, addr).Init(t.Context(), req)
	if err != nil || res.Password != "drawn" {
		t.Fatalf("%+v, %v", res, err)
	}
	if d := cmp.Diff(req, n.init); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestInitRequestsThatCannotBeRight(t *testing.T) {
	two := []InitMember{{ID: 1, Peer: "a:1"}, {ID: 2, Peer: "b:1"}}
	for name, r := range map[string]InitRequest{
		"list of members is empty": {},
		"no id":                    {Members: []InitMember{{Peer: "a:1"}}},
		"named twice":              {Members: []InitMember{{ID: 1, Peer: "a:1"}, {ID: 1, Peer: "b:1"}}},
		"is not host:port":         {Members: []InitMember{{ID: 1, Peer: "a"}}},
		"have the address":         {Members: []InitMember{{ID: 1, Peer: "a:1"}, {ID: 2, Peer: "a:1"}}},
		"limit is 64":              {Members: make([]InitMember, 65)},
		"password without a user":  {Members: two, Password: "12345678"},
		"cannot be the name":       {Members: two, User: "a b"},
		"belongs to the server":    {Members: two, User: "phxsql_agent"},
		"at least 8":               {Members: two, User: "app", Password: "short"},
	} {
		n := &fakeNode{}
		_, err := client(t, serve(t, n, nil, nil)).Init(t.Context(), r)
		var e *Error
		if !errors.As(err, &e) || e.Status != 400 || !strings.Contains(e.Reason, name) {
			t.Errorf("%s: got %v", name, err)
		}
		if len(n.init.Members) > 0 {
			t.Errorf("%s: reached the node", name)
		}
	}
}

func TestLogStream(t *testing.T) {
	n := &fakeNode{}
	void := true
	for i := range 3000 {
		n.entries = append(n.entries, LogEntry{Instance: paxos.Instance(i + 1), Kind: "transactions", Void: &void,
			Transactions: []LogTxn{{"uuid:1", 100}}})
	}
	c := client(t, serve(t, n, nil, nil))
	var got []LogEntry
	err := c.LogDump(t.Context(), 5, 0, func(e LogEntry) error {
		got = append(got, e)
		return nil
	})
	if err != nil || n.from != 5 || n.up != 0 {
		t.Fatalf("from %d to %d: %v", n.from, n.up, err)
	}
	if d := cmp.Diff(n.entries, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestLogStreamErrors(t *testing.T) {
	n := &fakeNode{dumpErr: Refused("trimmed", "instance 1 is gone", "start at 7")}
	c := client(t, serve(t, n, nil, nil))
	nothing := func(LogEntry) error { return nil }
	var e *Error
	if err := c.LogDump(t.Context(), 1, 0, nothing); !errors.As(err, &e) || e.Name != "trimmed" || e.Status != 409 {
		t.Errorf("before the first entry: %v", err)
	}
	n.entries = make([]LogEntry, 3)
	seen := 0
	err := c.LogDump(t.Context(), 1, 0, func(LogEntry) error { seen++; return nil })
	if !errors.As(err, &e) || e.Name != "trimmed" || seen != 3 {
		t.Errorf("after three entries: %d, %v", seen, err)
	}
	if err := c.LogDump(t.Context(), 9, 3, nothing); !errors.As(err, &e) || e.Name != "bad_range" {
		t.Errorf("wrong way round: %v", err)
	}
	stop := errors.New("enough")
	if err := c.LogDump(t.Context(), 1, 0, func(LogEntry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's own error: %v", err)
	}
}

func TestCutLogStreamIsAnError(t *testing.T) {
	err := readLines(strings.NewReader(`{"entry":{"instance":1}}`+"\n"), func(LogEntry) error { return nil })
	if err == nil {
		t.Error("a stream without its end was taken for whole")
	}
}

func TestEvents(t *testing.T) {
	es := telemetry.NewEvents(0)
	log, err := telemetry.NewLogger(io.Discard, telemetry.LogOptions{Events: es})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("gate opened", telemetry.KeyEpoch, 1)
	c := client(t, serve(t, &fakeNode{}, es, nil))
	got, err := c.Events(t.Context(), 0, 0)
	if err != nil || len(got.Events) != 1 || got.Last != 1 || got.Events[0].Message != "gate opened" {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err = c.Events(t.Context(), 1, 0); err != nil || len(got.Events) != 0 || got.Last != 1 {
		t.Fatalf("nothing new, yet %+v, %v", got, err)
	}
	type answer struct {
		EventsResult
		error
	}
	late := make(chan answer, 1)
	go func() {
		r, err := c.Events(t.Context(), 1, time.Minute)
		late <- answer{r, err}
	}()
	log.Warn("disk is slow")
	if a := <-late; a.error != nil || len(a.Events) != 1 || a.Events[0].Level != "warn" {
		t.Errorf("waited for %+v, %v", a.EventsResult, a.error)
	}
}

func TestAnotherClustersSecretIsRefused(t *testing.T) {
	addr := serve(t, &fakeNode{}, nil, nil)
	c := NewClient([]string{addr}, ClientTLS(credentials(t, "b", 1)))
	defer c.Close()
	_, err := c.Status(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Name != "another_secret" {
		t.Errorf("got %v", err)
	}
}

// A client that does not check the server must still prove itself.
func TestStrangersGetHealthAndMetricsOnly(t *testing.T) {
	n := &fakeNode{status: Status{Self: 1, Members: []MemberStatus{{ID: 1, State: StateFollower}}}}
	addr := serve(t, n, nil, telemetry.NewRegistry("test"))
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer hc.CloseIdleConnections()
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/healthz":   {200, `{"ok":true,"state":"follower"}`},
		"/metrics":   {200, "phxsql_build_info"},
		"/v1/status": {401, `"name":"unauthenticated"`},
		"/v1/log":    {401, `"name":"unauthenticated"`},
		"/v1/events": {401, `"name":"unauthenticated"`},
		"/v1/init":   {405, `"name":"wrong_method"`},
		"/v2":        {404, `"name":"no_such_route"`},
	} {
		resp, err := hc.Get("https://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want.code || !bytes.Contains(b, []byte(want.text)) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, b)
		}
	}
	resp, err := hc.Post("https://"+addr+"/v1/switchover", "application/json", strings.NewReader(`{"to":"1"}`))
	if err != nil || resp.StatusCode != 401 || n.to != "" {
		t.Errorf("a stranger moved the master: %v, %v", resp, err)
	}
	if resp != nil {
		resp.Body.Close()
	}
}

func TestHealthFollowsTheState(t *testing.T) {
	n := &fakeNode{}
	s := NewServer(ServerOptions{Node: n, Logger: slog.New(slog.DiscardHandler)})
	for state, want := range map[State]int{
		StateBlank: 200, StateFollower: 200, StateMaster: 200,
		StateStarting: 503, StateProving: 503, StateFaulty: 503, StateDemoting: 503, StatePromoting: 503,
	} {
		n.status = Status{Self: 2, Members: []MemberStatus{{ID: 1, State: StateMaster}, {ID: 2, State: state}}}
		if got := ask(s, "GET", "/healthz", ""); got.Code != want {
			t.Errorf("%s: %d", state, got.Code)
		}
	}
}

func TestBadRequests(t *testing.T) {
	n := &fakeNode{}
	addr := serve(t, n, nil, nil)
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: ClientTLS(credentials(t, "a", 2))}}
	defer hc.CloseIdleConnections()
	for _, body := range []string{``, `{`, `[]`, `{"too":"1"}`, `{"to":"1"} {}`, `{"to":"` + strings.Repeat("x", maxBody) + `"}`} {
		resp, err := hc.Post("https://"+addr+"/v1/switchover", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 400 || !bytes.Contains(b, []byte(`"bad_request"`)) {
			t.Errorf("%.20q: %d %s", body, resp.StatusCode, b)
		}
	}
	for _, q := range []string{"/v1/log?from=x", "/v1/log?to=-1", "/v1/events?after=x", "/v1/events?wait=5"} {
		resp, err := hc.Get("https://" + addr + q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("%s: %d", q, resp.StatusCode)
		}
	}
}

func TestClientTriesTheNextMember(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	alive := serve(t, &fakeNode{status: Status{Cluster: "c1"}}, nil, nil)
	if st, err := client(t, dead, alive).Status(t.Context()); err != nil || st.Cluster != "c1" {
		t.Errorf("%+v, %v", st, err)
	}
	_, err = client(t, dead).Status(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Name != "unreachable" || !strings.Contains(e.Reason, dead) || e.Hint == "" {
		t.Errorf("got %v", err)
	}
	if _, err = client(t).Status(t.Context()); HintOf(err) == "" {
		t.Errorf("without an address: %v", err)
	}
}

func TestSeconds(t *testing.T) {
	for in, want := range map[string]Seconds{"0.900": Seconds(900 * time.Millisecond), "-1": Seconds(-time.Second), "2": Seconds(2 * time.Second)} {
		var s Seconds
		if err := s.UnmarshalJSON([]byte(in)); err != nil || s != want {
			t.Errorf("%s: %v, %v", in, s, err)
		}
	}
	for _, in := range []string{"", "x", "NaN", "1e300", `"1s"`, "null"} {
		var s Seconds
		if err := s.UnmarshalJSON([]byte(in)); err == nil {
			t.Errorf("%s accepted as %v", in, s)
		}
	}
}
