package events

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// Account answers the question that follows a change of the master: who lost it and
// why, who took over and how long each step took, and what was taken back.
type Account struct {
	Epoch uint64       `json:"epoch"`
	Old   paxos.NodeID `json:"old,omitempty"` // 0: there was none
	New   paxos.NodeID `json:"new"`
	// At is when the new master let clients in, by its clock.
	At time.Time `json:"at"`
	// Cause and Why are the old master's own word if it gave one, now or when it came
	// back, else what the new one saw; By is whose word it is. Lost is when, by the clock
	// of By.
	Cause Cause        `json:"cause"`
	Why   string       `json:"why"`
	By    paxos.NodeID `json:"by"`
	Lost  time.Time    `json:"lost,omitzero"`
	// Seen is what the new master saw of the old one.
	Seen   string        `json:"seen,omitempty"`
	Took   time.Duration `json:"took_ns"`
	Phases []Phase       `json:"phases,omitempty"`
	// FirstCommit is how long after At the first transaction of a client was chosen; 0:
	// there was none yet.
	FirstCommit time.Duration `json:"first_commit_ns,omitempty"`
	// Undone tells what nodes took back of the reign before.
	Undone []Undone `json:"undone,omitempty"`
	// Related are the other events of the reign before that led here.
	Related []Event `json:"related,omitempty"`
}

// Undone is what one node took back, with the judgement whether anything of it
// had been acknowledged.
type Undone struct {
	Node     paxos.NodeID `json:"node"`
	Discard  Discard      `json:"discard"`
	Clean    bool         `json:"clean"`
	Sentence string       `json:"sentence"`
}

// Accounts makes the accounts of all changes of the master in a list of events,
// oldest first, and returns what belongs to none of them beside.
func Accounts(list []Event) (accounts []Account, rest []Event) {
	list = slices.Clone(list)
	var reigns []Event
	for _, e := range list {
		if e.Kind == Began {
			reigns = append(reigns, e)
		}
	}
	slices.SortStableFunc(reigns, func(a, b Event) int { return cmp.Compare(a.Epoch, b.Epoch) })
	used := map[string]bool{}
	for n, r := range reigns {
		after := uint64(0)
		if n > 0 {
			after = reigns[n-1].Epoch
		}
		accounts = append(accounts, account(r, after, list, used))
	}
	for _, e := range list {
		if !used[e.ID] {
			rest = append(rest, e)
		}
	}
	return accounts, rest
}

// account collects what belongs to one reign's beginning: of the epochs from the one
// before on, up to its own, how they ended.
func account(began Event, before uint64, list []Event, used map[string]bool) Account {
	a := Account{
		Epoch: began.Epoch, Old: began.Peer, New: began.Node, At: began.At, Took: began.Took, Phases: began.Phases,
		Cause: began.Cause, Why: began.Reason, By: began.Node, Seen: began.Reason, Lost: began.At.Add(-began.Took),
	}
	used[began.ID] = true
	word := 0 // of the old master: its own at the time counts more than that of its next life
	for _, e := range list {
		own := e.Epoch == began.Epoch && e.Node == began.Node
		past := e.Epoch >= before && e.Epoch < began.Epoch && e.Epoch > 0
		switch {
		case own && e.Kind == FirstCommit:
			a.FirstCommit = max(e.Took, 1)
		case past && e.Kind == Ended && e.Node == a.Old && word < 2:
			word = 2
			a.Cause, a.Why, a.By, a.Lost = e.Cause, e.Reason, e.Node, e.At
		case past && e.Kind == Returned && e.Node == a.Old && word < 1:
			word = 1
			a.Cause, a.Why, a.By = e.Cause, e.Reason, e.Node
		case past && e.Kind == Discarded && e.Discard != nil:
			a.Undone = append(a.Undone, Undone{Node: e.Node, Discard: *e.Discard, Clean: e.Discard.Clean(), Sentence: e.Discard.Sentence()})
		case past && (e.Kind == SwitchAsked || e.Kind == SwitchFailed || e.Kind == Unfit || e.Kind == Ended || e.Kind == Returned):
			a.Related = append(a.Related, e)
		default:
			continue
		}
		used[e.ID] = true
	}
	return a
}

// Sentence says whether anything acknowledged was taken back, and how that is known.
func (d *Discard) Sentence() string {
	proof := fmt.Sprintf("the log through instance %d has none of them", d.Through)
	if d.EngineKnown {
		proof += "; the server holds none"
	}
	if d.AckKnown {
		proof += "; all stand behind the last position that was acknowledged"
	}
	switch {
	case d.Count == 0:
		return fmt.Sprintf("nothing was taken back: all %d transactions of its binlog are in the log through instance %d", d.Chosen, d.Through)
	case d.Clean():
		return "nothing acknowledged was among them: " + proof
	}
	return fmt.Sprintf("NOT PROVED that nothing acknowledged was among them: %d are in the server, %d before the last position that was acknowledged; keep the evidence and report it",
		d.InEngine, d.BeforeAck)
}

// Text writes an account for people, several lines.
func (a *Account) Text() string {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "  %-9s %s\n", key, fmt.Sprintf(format, args...))
	}
	if a.Old == 0 {
		fmt.Fprintf(&b, "epoch %d: node %d became the first master\n", a.Epoch, a.New)
	} else if a.Old == a.New {
		fmt.Fprintf(&b, "epoch %d: node %d became master again\n", a.Epoch, a.New)
	} else {
		fmt.Fprintf(&b, "epoch %d: node %d took over from node %d\n", a.Epoch, a.New, a.Old)
	}
	if a.Old != 0 {
		line("lost", "%s", stamp(a.Lost))
		line("why", "%s: %s (%s)", a.Cause, orNone(a.Why), byWhom(a))
	}
	if a.By != a.New && a.Seen != "" {
		line("seen", "node %d: %s", a.New, a.Seen)
	}
	for _, e := range a.Related {
		line("and", "%s", e.Line())
	}
	line("open", "%s, after %s", stamp(a.At), round(a.Took))
	if len(a.Phases) > 0 {
		line("phases", "%s", phases(a.Phases))
	}
	if a.FirstCommit > 0 {
		line("commit", "the first one %s after that", round(a.FirstCommit))
	} else {
		line("commit", "none yet")
	}
	a.undone(line)
	return b.String()
}

func (a *Account) undone(line func(key, format string, args ...any)) {
	for _, u := range a.Undone {
		if u.Discard.Count > 0 {
			line("undone", "node %d took back %s: %s", u.Node, count(u.Discard.Count, "transaction"), u.Discard.GTIDs)
		}
		line("proof", "node %d: %s", u.Node, u.Sentence)
		if u.Discard.Evidence != "" {
			line("evidence", "node %d: %s", u.Node, u.Discard.Evidence)
		}
	}
	if len(a.Undone) == 0 && a.Old != 0 && a.Cause != CauseSwitchover {
		line("undone", "node %d has not said yet: it is not back, or it wrote nothing", a.Old)
	}
}

func byWhom(a *Account) string {
	switch {
	case a.By == a.Old && a.By != a.New:
		return fmt.Sprintf("said by node %d itself", a.By)
	case a.Old == 0 || a.Old == a.New:
		return fmt.Sprintf("said by node %d", a.By)
	}
	return fmt.Sprintf("as node %d saw it; node %d has not spoken yet", a.By, a.Old)
}

func phases(ps []Phase) string {
	var parts []string
	for _, p := range ps {
		parts = append(parts, p.Name+" "+round(p.Took))
	}
	return strings.Join(parts, ", ")
}

// Line writes an event for people in one line, without its time.
func (e *Event) Line() string {
	s := fmt.Sprintf("node %d %s", e.Node, strings.ReplaceAll(string(e.Kind), "_", " "))
	if e.Epoch != 0 {
		s += fmt.Sprintf(" (epoch %d)", e.Epoch)
	}
	if e.Cause != "" {
		s += ": " + string(e.Cause)
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Discard != nil {
		s += ": " + e.Discard.Sentence()
	}
	if e.Instance == 0 {
		s += " [on that node's disk only]"
	}
	return s
}

func stamp(t time.Time) string { return t.Format("2006-01-02 15:04:05.000") }

func round(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func orNone(s string) string {
	if s == "" {
		return "no reason is known"
	}
	return s
}
