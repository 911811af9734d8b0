package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/paxos"
)

// isWell reports that nothing has a problem.
func isWell(st api.Status) bool {
	if len(st.Problems) > 0 {
		return false
	}
	for _, m := range st.Members {
		if len(m.Problems) > 0 {
			return false
		}
	}
	return true
}

// renderStatus writes the status for people.
func renderStatus(w io.Writer, st api.Status) {
	fmt.Fprintln(w, headline(st))
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tROLE\tSTATE\tEPOCH\tLEASE\tCHOSEN\tAPPLIED\tLAG\tENGINE\tREAD-WRITE\tREAD-ONLY")
	for _, m := range st.Members {
		fmt.Fprintln(t, strings.Join(row(st, m), "\t"))
	}
	_ = t.Flush() // an error here is one of w, which ends the command anyway
	for _, m := range st.Members {
		if m.Copy != nil && m.Alive {
			fmt.Fprintf(w, "\n%s: %s\n", memberName(m), copyLine(*m.Copy))
		}
	}
	for _, m := range st.Members {
		if m.Flow != nil && m.Flow.Rate > 0 && m.Alive {
			fmt.Fprintf(w, "\n%s holds commits up (%s/s): %s, see flow.max_lag\n", memberName(m), sizeText(m.Flow.Rate), flowReason(*m.Flow))
		}
	}
	for _, m := range st.Members {
		if m.ID == st.Self && len(m.Log.HeldBy) > 0 {
			fmt.Fprintf(w, "\n%s keeps its log (%s) for %s\n", memberName(m), sizeText(m.Log.Bytes), heldFor(st, m.Log.HeldBy))
		}
	}
	renderProblems(w, st)
}

// flowReason says who commits are held up for.
func flowReason(f api.Flow) string {
	if f.For != 0 {
		return fmt.Sprintf("node %d, whose data are new, catches up", f.For)
	}
	return fmt.Sprintf("the best follower is %s behind", shortTime(time.Duration(f.Lag)))
}

// heldFor names the members that a log is kept for, each with the reason.
func heldFor(st api.Status, ids []paxos.NodeID) string {
	var list []string
	for _, id := range ids {
		text := fmt.Sprintf("member %d", id)
		for _, m := range st.Members {
			switch {
			case m.ID != id:
			case !m.Alive:
				text += " (not heard of for " + heard(m) + ")"
			case m.Copy != nil:
				text += " (its data are being filled)"
			case m.LagTransactions > 0:
				text += fmt.Sprintf(" (%d transactions behind)", m.LagTransactions)
			}
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func headline(st api.Status) string {
	self := name(st, func(m api.MemberStatus) bool { return m.ID == st.Self })
	if st.Cluster == "" {
		return self + " belongs to no cluster yet"
	}
	master := name(st, func(m api.MemberStatus) bool { return isMaster(st, m) })
	who := "no master"
	if master != "" {
		who = "master " + master
	}
	return fmt.Sprintf("cluster %s: %s (says %s)", st.Cluster, who, self)
}

// isMaster reports that a member takes writes, as far as is known: a dead master's
// last words stand for a moment beside those of its successor.
func isMaster(st api.Status, m api.MemberStatus) bool {
	if !m.Master || !m.Alive {
		return false
	}
	for _, o := range st.Members {
		if o.Epoch > m.Epoch && o.Alive {
			return false
		}
	}
	return true
}

func name(st api.Status, is func(api.MemberStatus) bool) string {
	for _, m := range st.Members {
		if is(m) {
			return memberName(m)
		}
	}
	return ""
}

func memberName(m api.MemberStatus) string {
	if m.Name != "" {
		return m.Name
	}
	return fmt.Sprintf("node %d", m.ID)
}

func row(st api.Status, m api.MemberStatus) []string {
	cells := []string{
		strconv.FormatUint(uint64(m.ID), 10), memberName(m), orDash(m.Role), string(m.State), number(m.Epoch), lease(m),
		number(uint64(m.Log.Chosen)), number(uint64(m.Log.Applied)), lag(m), engineCell(m), orDash(m.RWAddr), orDash(m.ROAddr),
	}
	if !m.Alive || m.Master && !isMaster(st, m) { // what it announced last says nothing about now
		cells[3] = "unheard " + heard(m)
		for _, i := range []int{5, 8, 9} {
			cells[i] = "-"
		}
	}
	return cells
}

func heard(m api.MemberStatus) string {
	if m.Heard < 0 {
		return "ever"
	}
	return shortTime(time.Duration(m.Heard))
}

func lease(m api.MemberStatus) string {
	if m.Lease.Holder != m.ID || m.Lease.Remaining <= 0 {
		return "-"
	}
	return shortTime(time.Duration(m.Lease.Remaining))
}

func lag(m api.MemberStatus) string {
	if m.LagTransactions == 0 && m.LagSeconds <= 0 {
		return "0"
	}
	s := fmt.Sprintf("%d trx", m.LagTransactions)
	if m.LagSeconds > 0 {
		s += " " + shortTime(time.Duration(m.LagSeconds))
	}
	return s
}

func engineCell(m api.MemberStatus) string {
	return orDash(strings.TrimSpace(m.Engine.State + " " + m.Engine.Version))
}

func number(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// copyLine is how far a copy of the data has come.
func copyLine(c api.Copy) string {
	if c.Phase == "proving" {
		return fmt.Sprintf("compares its new data with the master's: %d of about %d rows", c.Rows, c.RowsTotal) + timeLeft(c)
	}
	if c.Phase == "executing" {
		s := fmt.Sprintf("gets the data by executing the log: %s of about %s", sizeText(c.Bytes), sizeText(c.Total))
		if c.Rate > 0 {
			s += ", " + sizeText(c.Rate) + "/s"
		}
		return s + timeLeft(c) + whyText(c)
	}
	if c.Phase != "copying" {
		return fmt.Sprintf("has the data of member %d (%s), and applies the rest of the log", c.Donor, sizeText(c.Bytes))
	}
	return fmt.Sprintf("copies the data of member %d: %s of about %s, %s/s", c.Donor, sizeText(c.Bytes), sizeText(c.Total), sizeText(c.Rate)) + timeLeft(c) + whyText(c)
}

func whyText(c api.Copy) string {
	if c.Why == "" {
		return ""
	}
	return " (" + c.Why + ")"
}

func timeLeft(c api.Copy) string {
	if c.Remaining <= 0 {
		return ""
	}
	return ", " + shortTime(time.Duration(c.Remaining)) + " left"
}

// sizeText writes a number of bytes with as many digits as are worth reading.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, k := float64(n), 0
	for f >= 1024 && k < len(units)-1 {
		f, k = f/1024, k+1
	}
	if f < 10 && k > 0 {
		return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[k]
	}
	return strconv.FormatFloat(f, 'f', 0, 64) + " " + units[k]
}

// shortTime writes a length of time with as many digits as are worth reading.
func shortTime(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func renderProblems(w io.Writer, st api.Status) {
	if isWell(st) {
		return
	}
	fmt.Fprintln(w, "\nNot well:")
	for _, p := range st.Problems {
		renderProblem(w, "cluster", p)
	}
	for _, m := range st.Members {
		for _, p := range m.Problems {
			renderProblem(w, memberName(m), p)
		}
	}
}

func renderProblem(w io.Writer, who string, p api.Problem) {
	fmt.Fprintf(w, "  %s: %s: %s\n", who, p.Name, p.Reason)
	if p.Hint != "" {
		fmt.Fprintf(w, "    hint: %s\n", p.Hint)
	}
}
