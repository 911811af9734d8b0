package api

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// statusMetrics turns the status into metrics at each scrape, so that both always
// agree.
type statusMetrics struct {
	node Node
	desc map[string]*prometheus.Desc
}

var states = []State{StateBlank, StateJoining, StateRemoved, StateWitness, StateStarting, StateProving, StateFollower, StatePromoting, StateMaster, StateDemoting, StateFaulty, StateUnknown}

// newStatusMetrics returns a gatherer of its own, so that a node which has
// registered nothing has these.
func newStatusMetrics(n Node) prometheus.Gatherer {
	m := &statusMetrics{node: n, desc: map[string]*prometheus.Desc{}}
	for _, d := range []struct {
		name, help string
		labels     []string
	}{
		{"phxsql_node_state", "1 for the state that this node is in, 0 for the others.", []string{"state"}},
		{"phxsql_node_master", "1 while this node takes writes.", nil},
		{"phxsql_node_epoch", "Newest epoch that this node knows; it rises with every new master.", nil},
		{"phxsql_node_problems", "Number of problems that this node reports about itself.", nil},
		{"phxsql_cluster_problems", "Number of problems of the cluster, as this node sees it.", nil},
		{"phxsql_lease_remaining_seconds", "How long this node's lease still runs; 0 if it holds none.", nil},
		{"phxsql_log_first_instance", "Oldest instance of the log that is kept.", nil},
		{"phxsql_log_chosen_instance", "Newest instance of the log that is known to be chosen.", nil},
		{"phxsql_log_applied_instance", "Newest instance of the log that the engine has executed, with all before it.", nil},
		{"phxsql_log_size_bytes", "Size of the log on disk.", nil},
		{"phxsql_engine_running", "1 while the engine runs.", nil},
		{"phxsql_engine_lag_transactions", "Transactions that are chosen but not yet in the engine.", nil},
		{"phxsql_engine_lag_seconds", "Age of the oldest of them.", nil},
		{"phxsql_flow_lag_seconds", "On a master: how far the best follower that could be the next one is behind.", nil},
		{"phxsql_flow_rate_bytes", "On a master: bytes per second that it takes in at most, so that this follower keeps up; 0 is no limit.", nil},
		{"phxsql_flow_waited_seconds", "How long values of the log were held up for that while this node is master, since its start.", nil},
		{"phxsql_certificate_expiry_timestamp_seconds", "When the certificate ends that this node shows to the others, in seconds since 1970.", nil},
		{"phxsql_member_up", "1 while the member was heard from lately by this node.", []string{"member", "name"}},
	} {
		m.desc[d.name] = prometheus.NewDesc(d.name, d.help, d.labels, nil)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	return r
}

// Describe sends the descriptions of all metrics.
func (m *statusMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.desc {
		ch <- d
	}
}

// Collect asks the node and sends what it says. A node that does not answer in
// time has no such metrics, which an alert can notice.
func (m *statusMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := m.node.Status(ctx)
	if err != nil {
		return
	}
	gauge := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.desc[name], prometheus.GaugeValue, v, labels...)
	}
	gauge("phxsql_cluster_problems", float64(len(st.Problems)))
	for _, s := range st.Members {
		gauge("phxsql_member_up", truth(s.Alive), strconv.FormatUint(uint64(s.ID), 10), s.Name)
		if s.ID == st.Self {
			self(s, gauge)
		}
	}
}

func self(s MemberStatus, gauge func(name string, v float64, labels ...string)) {
	for _, state := range states {
		gauge("phxsql_node_state", truth(s.State == state), string(state))
	}
	gauge("phxsql_node_master", truth(s.Master))
	gauge("phxsql_node_epoch", float64(s.Epoch))
	gauge("phxsql_node_problems", float64(len(s.Problems)))
	gauge("phxsql_lease_remaining_seconds", time.Duration(s.Lease.Remaining).Seconds())
	gauge("phxsql_log_first_instance", float64(s.Log.First))
	gauge("phxsql_log_chosen_instance", float64(s.Log.Chosen))
	gauge("phxsql_log_applied_instance", float64(s.Log.Applied))
	gauge("phxsql_log_size_bytes", float64(s.Log.Bytes))
	gauge("phxsql_engine_running", truth(s.Engine.State == "running"))
	gauge("phxsql_engine_lag_transactions", float64(s.LagTransactions))
	flow := Flow{}
	if s.Flow != nil {
		flow = *s.Flow
	}
	gauge("phxsql_flow_lag_seconds", time.Duration(flow.Lag).Seconds())
	gauge("phxsql_flow_rate_bytes", float64(flow.Rate))
	gauge("phxsql_flow_waited_seconds", time.Duration(flow.Waited).Seconds())
	gauge("phxsql_certificate_expiry_timestamp_seconds", float64(s.CertificateExpires.Unix()))
	gauge("phxsql_engine_lag_seconds", time.Duration(s.LagSeconds).Seconds())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
