package api

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestStatusAsMetrics(t *testing.T) {
	n := &fakeNode{status: Status{Self: 2, Problems: []Problem{{Name: "x"}}, Members: []MemberStatus{
		{ID: 1, Name: "a"},
		{ID: 2, Name: "b", Alive: true, State: StateMaster, Master: true, Epoch: 4, Lease: Lease{2, Seconds(800 * time.Millisecond)},
			Log: Log{First: 1, Chosen: 90, Applied: 88, Bytes: 4096}, LagTransactions: 2, LagSeconds: Seconds(1500 * time.Millisecond),
			Engine: Engine{State: "running"}},
	}}}
	s := NewServer(ServerOptions{Node: n})
	got := ask(s, "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		`phxsql_node_state{state="master"} 1`, `phxsql_node_state{state="follower"} 0`, "phxsql_node_master 1", "phxsql_node_epoch 4",
		"phxsql_lease_remaining_seconds 0.8", "phxsql_log_chosen_instance 90", "phxsql_log_applied_instance 88", "phxsql_log_size_bytes 4096",
		"phxsql_engine_lag_transactions 2", "phxsql_engine_lag_seconds 1.5", "phxsql_engine_running 1", "phxsql_cluster_problems 1",
		`phxsql_member_up{member="1",name="a"} 0`, `phxsql_member_up{member="2",name="b"} 1`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	n.err = errors.New("stuck")
	if rec := ask(s, "GET", "/metrics", ""); rec.Code != 200 || strings.Contains(rec.Body.String(), "phxsql_") {
		t.Errorf("a node that does not answer: %d %s", rec.Code, rec.Body)
	}
}

// Every metric has its row in docs/metrics.md.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\{"(phxsql_\w+)"`).FindAllStringSubmatch(string(src), -1) {
		if !strings.Contains(string(doc), "| `"+m[1]+"`") {
			t.Errorf("%s has no row in docs/metrics.md", m[1])
		}
	}
}
