package drill

import (
	"context"
	"slices"
	"strings"
	"testing"

	mysql "github.com/go-sql-driver/mysql"
)

func TestDecisionsAboutXATransactions(t *testing.T) {
	unknownName := &mysql.MySQLError{Number: codeUnknownXID}
	readOnly := &mysql.MySQLError{Number: 1290}
	for _, c := range []struct {
		name    string
		txn     xaTxn
		answers []error
		decided Outcome
		wrong   bool
	}{
		{"done", xaTxn{prepared: Acknowledged}, []error{nil}, Acknowledged, false},
		{"after a broken connection", xaTxn{prepared: Acknowledged}, []error{context.DeadlineExceeded, nil}, Acknowledged, false},
		{"carried out by what broke", xaTxn{prepared: Acknowledged}, []error{context.DeadlineExceeded, unknownName}, Unknown, false},
		{"lost", xaTxn{prepared: Acknowledged}, []error{unknownName}, Unknown, true},
		{"lost after a refusal", xaTxn{prepared: Acknowledged}, []error{readOnly, unknownName}, Unknown, true},
		{"never prepared", xaTxn{prepared: Unknown}, []error{unknownName}, Unknown, false},
		{"refused", xaTxn{prepared: Acknowledged}, []error{readOnly}, 0, false},
	} {
		wrong := ""
		for _, err := range c.answers {
			wrong = c.txn.told(err)
		}
		if c.txn.decided != c.decided || (wrong != "") != c.wrong {
			t.Errorf("%s: decided %d, want %d; wrong: %q", c.name, c.txn.decided, c.decided, wrong)
		}
	}
}

func TestJudgeOfXATransactions(t *testing.T) {
	txns := map[int64]*xaTxn{
		1: {prepared: Acknowledged, commit: true, decided: Acknowledged},
		2: {prepared: Acknowledged, decided: Acknowledged},
		3: {prepared: Acknowledged, commit: true},
		4: {prepared: Refused},
		5: {prepared: Unknown, commit: true, decided: Unknown},
		6: {prepared: Acknowledged, commit: true, decided: Unknown},
	}
	for _, c := range []struct {
		name     string
		rows     map[int64]int64
		prepared []int64
		want     string // of what is wrong; empty: nothing
	}{
		{"all as told", map[int64]int64{1: 3, 6: 3}, []int64{3}, ""},
		{"the unknown ones are otherwise", map[int64]int64{1: 3, 5: 3}, []int64{3, 6}, ""},
		{"half", map[int64]int64{1: 3, 6: 2}, []int64{3}, "half there, such as [6]"},
		{"a commit is lost", map[int64]int64{6: 3}, []int64{3}, "committed and not there, such as [1]"},
		{"a commit is prepared still", map[int64]int64{6: 3}, []int64{1, 3}, "decided and still prepared, such as [1]"},
		{"a rollback is there", map[int64]int64{1: 3, 2: 3, 6: 3}, []int64{3}, "there and never committed, such as [2]"},
		{"what was prepared is lost", map[int64]int64{1: 3, 6: 3}, nil, "prepared, not decided, and lost, such as [3]"},
		{"what was perhaps committed is lost", map[int64]int64{1: 3}, []int64{3}, "prepared, never rolled back, and lost, such as [6]"},
		{"a refused one is prepared", map[int64]int64{1: 3, 6: 3}, []int64{3, 4}, "refused and there, such as [4]"},
		{"committed without a decision", map[int64]int64{1: 3, 3: 3, 6: 3}, nil, "there and not decided, such as [3]"},
		{"nobody's", map[int64]int64{1: 3, 6: 3, 9: 3}, []int64{3}, "written by nobody, such as [9]"},
	} {
		prepared := map[int64]bool{}
		for _, id := range c.prepared {
			prepared[id] = true
		}
		wrong := judgeXA(1, txns, c.rows, prepared)
		if c.want == "" && len(wrong) > 0 || c.want != "" && !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, c.want) }) {
			t.Errorf("%s: %q", c.name, wrong)
		}
	}
}

func TestJudgeOfLargeTransactions(t *testing.T) {
	l := &large{
		rows:    map[int64]int64{1: 10, 2: 10, 3: 10, 4: 10, 5: 10},
		written: map[int64]Outcome{1: Acknowledged, 2: Acknowledged, 3: Unknown, 4: Refused, 5: Acknowledged},
		deleted: map[int64]Outcome{1: Acknowledged, 5: Unknown},
	}
	for _, c := range []struct {
		name string
		good map[int64]int64
		want string
	}{
		{"all as told", map[int64]int64{2: 10}, ""},
		{"the unknown ones are otherwise", map[int64]int64{2: 10, 3: 10, 5: 10}, ""},
		{"half", map[int64]int64{2: 10, 3: 9}, "not whole, such as [3]"},
		{"lost", map[int64]int64{}, "lost, such as [2]"},
		{"refused", map[int64]int64{2: 10, 4: 10}, "refused and there, such as [4]"},
		{"deleted", map[int64]int64{1: 10, 2: 10}, "deleted and there, such as [1]"},
		{"nobody's", map[int64]int64{2: 10, 9: 1}, "written by nobody, such as [9]"},
	} {
		wrong := l.judge(1, c.good)
		if c.want == "" && len(wrong) > 0 || c.want != "" && (len(wrong) != 1 || !strings.Contains(wrong[0], c.want)) {
			t.Errorf("%s: %q", c.name, wrong)
		}
	}
}
