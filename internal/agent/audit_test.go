package agent

import (
	"strings"
	"testing"

	"github.com/phxsql/phxsql/internal/audit"
	"github.com/phxsql/phxsql/paxos"
)

// A pass says whose accounts it could not compare, once for each member and reason, and
// what nobody is judged for. Rows that are being changed are no news.
func TestRemarkOfAPass(t *testing.T) {
	pieces := []audit.Piece{
		{Table: audit.Table{Schema: "mysql", Name: "user"}, Rule: "accounts/1"}, {Table: audit.Table{Schema: "mysql", Name: "db"}, Rule: "accounts/1"},
		{Table: audit.Table{Schema: "shop", Name: "t"}},
	}
	sums := func(unknown ...string) (list []audit.Sum) {
		for _, u := range unknown {
			list = append(list, audit.Sum{Unknown: u})
		}
		return list
	}
	var p pass
	if got := p.remark(); got != "" {
		t.Errorf("nothing to remark: %q", got)
	}
	for range 2 {
		p.passedOver(pieces, []audit.Result{
			{Node: 1, Sums: sums("", "", "")}, {Node: 2, Sums: sums("", "", "it is being changed")},
			{Node: 3, Sums: sums("its server has version 8", "its server has version 8", "")},
		})
	}
	if len(p.res.Skipped) != 1 || !strings.Contains(p.res.Skipped[0], "node 3: its server has version 8") {
		t.Errorf("passed over: %q", p.res.Skipped)
	}
	p.res.Advice = []string{"a grant differs"}
	if got := p.remark(); !strings.Contains(got, p.res.Skipped[0]) || !strings.Contains(got, "a grant differs (hint: GRANT it on the master") {
		t.Errorf("remark: %q", got)
	}
}

// What a pass counts as rows are rows, not what rules choose.
func TestCountOfAPass(t *testing.T) {
	var a Agent
	a.cfg.Node.ID = 1
	p := pass{a: &a, nodes: map[paxos.NodeID]bool{}}
	p.count([]audit.Piece{{Rule: "accounts/1"}, {}}, []audit.Result{
		{Node: 1, Sums: []audit.Sum{{Rows: 7}, {Rows: 30}}}, {Node: 2, Sums: []audit.Sum{{Rows: 8}, {Rows: 31}}},
	})
	if p.res.Rows != 30 || len(p.nodes) != 2 {
		t.Errorf("%d rows on %v", p.res.Rows, p.nodes)
	}
}

// A round has no more pieces than members read, however fast audits may be, and it always
// gets on.
func TestRoundRoom(t *testing.T) {
	for _, ruled := range []int{0, 11} {
		for _, rate := range []int{1, 5000, 50_000, 90_000, 1_000_000, 1 << 30} {
			n := roundRoom(ruled, rate)
			r := audit.Round{ID: "x", Pieces: make([]audit.Piece, n)}
			b, err := r.Encode()
			if err == nil {
				_, err = audit.DecodeRound(b)
			}
			if err != nil || n <= ruled {
				t.Errorf("%d pieces of rules at %d rows per second: %d in all, %v", ruled, rate, n, err)
			}
		}
	}
}
