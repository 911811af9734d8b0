package api

import (
	"fmt"
	"strings"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/paxos"
)

// Describer makes entries of the log readable. It is given them in order, without
// holes, and tells for each value whether it counts: a value does only under the
// newest epoch before it. The zero Describer has seen no epoch yet.
type Describer struct {
	epoch uint64
	begun bool // an epoch was seen
}

// Describe returns the readable form of an entry. Data that cannot be decoded is
// named as such and never an error: a dump is what one looks at when something is
// wrong.
func (d *Describer) Describe(e paxos.Entry) LogEntry {
	le := LogEntry{Instance: e.Instance, Ballot: e.Ballot.String(), Kind: e.Kind.String(), Bytes: len(e.Data)}
	switch e.Kind {
	case paxos.Membership:
		le.Detail = describeMembers(e.Data)
	case paxos.Normal:
		d.value(&le, e.Data)
	}
	return le
}

func (d *Describer) value(le *LogEntry, data []byte) {
	v, err := entry.Decode(data)
	if err != nil {
		le.Kind, le.Detail = "unreadable", err.Error()
		return
	}
	le.Kind, le.Epoch, le.Node, le.Last = v.Kind.String(), v.Epoch, paxos.NodeID(v.Node), v.Last
	if v.Kind.Notice() || v.Kind == entry.Settings {
		le.Detail = string(clip(v.Events))
		return
	}
	if v.Kind == entry.Epoch {
		d.epoch, d.begun = v.Epoch, true
		le.ServerUUID = v.ServerUUID.String()
		return
	}
	if d.begun {
		void := v.Epoch != d.epoch
		le.Void = &void
	}
	for _, t := range v.Txns {
		le.Transactions = append(le.Transactions, LogTxn{GTID: t.GTID.String(), Bytes: int(t.Size)})
	}
	if v.Kind == entry.Chunk {
		le.Detail = fmt.Sprintf("bytes %d to %d", v.Offset, v.Offset+uint64(len(v.Events)))
	}
}

func describeMembers(data []byte) string {
	ms, err := paxos.DecodeMembers(data)
	if err != nil {
		return err.Error()
	}
	parts := []string{"cluster " + ms.Cluster}
	for _, m := range ms.List {
		parts = append(parts, fmt.Sprintf("%d=%s", m.ID, m.Addr))
	}
	return strings.Join(parts, " ")
}
