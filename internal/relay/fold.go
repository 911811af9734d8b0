package relay

import (
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// Epoch is the reign of one master as the log shows it. The zero Epoch is that
// of a log in which no master has begun.
type Epoch struct {
	Number     uint64
	Node       uint64
	ServerUUID gtid.UUID
	// Instance is where the Epoch value stands.
	Instance paxos.Instance
}

// verdict says what a value of the log means.
type verdict uint8

const (
	void        verdict = iota // does not count
	begins                     // an epoch begins
	whole                      // transactions that count
	part                       // a chunk of a transaction that is not complete yet
	completed                  // the chunk that completes one
	aside                      // a notice: nothing that counts
	settles                    // a change of the settings: the Journal judges it
	numVerdicts = iota
)

// fold is the state that the rules need from everything before a value. It is
// small and copied freely.
type fold struct {
	epoch Epoch

	// The unfinished chunked transaction; open is false when there is none.
	open  bool
	txn   entry.Txn
	first paxos.Instance // of its chunk at offset 0
	next  uint64         // offset of the chunk that continues it
}

// apply judges the value at instance i, which follows all earlier ones.
func (f *fold) apply(i paxos.Instance, v *entry.Value) verdict {
	if v.Kind.Notice() {
		return aside
	}
	if v.Kind == entry.Settings {
		return settles
	}
	if v.Kind == entry.Epoch {
		if v.Epoch <= f.epoch.Number {
			return void
		}
		*f = fold{epoch: Epoch{Number: v.Epoch, Node: v.Node, ServerUUID: v.ServerUUID, Instance: i}}
		return begins
	}
	if f.epoch.Number == 0 || v.Epoch != f.epoch.Number || v.Node != f.epoch.Node {
		return void
	}
	if v.Kind == entry.Transactions {
		f.open = false
		return whole
	}
	return f.chunk(i, v)
}

// chunk judges a chunk of the reigning master. One at offset 0 always begins
// anew: the master starts over after its connection to its server broke.
func (f *fold) chunk(i paxos.Instance, v *entry.Value) verdict {
	if v.Offset == 0 {
		f.open, f.txn, f.first, f.next = true, v.Txns[0], i, 0
	}
	if !f.continues(v) {
		f.open = false
		return void
	}
	f.next += uint64(len(v.Events))
	if !v.Last {
		return part
	}
	f.open = false
	return completed
}

// continues reports whether the chunk is the next one of the open transaction.
func (f *fold) continues(v *entry.Value) bool {
	return f.open && v.Kind == entry.Chunk && v.Epoch == f.epoch.Number && v.Node == f.epoch.Node &&
		v.Txns[0] == f.txn && v.Offset == f.next
}
