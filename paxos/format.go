package paxos

import (
	"fmt"
	"strings"
)

// String returns the entry in the form of traces: instance, ballot, kind, size.
func (e Entry) String() string {
	s := fmt.Sprintf("%d@%v %v", e.Instance, e.Ballot, e.Kind)
	if len(e.Data) > 0 {
		s += fmt.Sprintf(" %dB", len(e.Data))
	}
	return s
}

// String returns the message in the form of traces: sender, receiver, kind and
// the fields that are not zero. It is for people and no format to rely on.
func (m Message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d>%d %v %v", m.From, m.To, m.Kind, m.Ballot)
	if m.Reject != RejectNone {
		fmt.Fprintf(&b, " reject=%v", m.Reject)
	}
	if !m.Promised.IsZero() {
		fmt.Fprintf(&b, " promised=%v", m.Promised)
	}
	if !m.Consent.IsZero() {
		fmt.Fprintf(&b, " consent=%v", m.Consent)
	}
	for _, f := range []struct {
		name string
		i    Instance
	}{{"first", m.First}, {"through", m.Through}, {"received", m.Received}, {"chosen", m.Chosen}} {
		if f.i != 0 {
			fmt.Fprintf(&b, " %s=%d", f.name, f.i)
		}
	}
	if m.Lease != 0 && (m.Kind == MsgAccepted || m.Kind == MsgRenewed) {
		fmt.Fprintf(&b, " lease=%v", m.Lease)
	}
	for i, e := range m.Entries {
		sep := ", "
		if i == 0 {
			sep = " ["
		}
		b.WriteString(sep + e.String())
	}
	if len(m.Entries) > 0 {
		b.WriteString("]")
	}
	return b.String()
}
