package relay

import (
	"bytes"
	"io"

	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// walk reads the log and judges its values.
type walk struct {
	log   Log
	fold  fold // before the next value
	value entry.Value
}

// step hands each transaction that counts and is complete at instance i to pass.
func (w *walk) step(i paxos.Instance, pass func(gtid.GTID, io.Reader) error) error {
	e, err := w.log.Read(i)
	if err != nil || e.Kind != paxos.Normal {
		return err
	}
	v := &w.value
	if err := v.Decode(e.Data); err != nil {
		return err
	}
	switch w.fold.apply(i, v) {
	case whole:
		rest := v.Events
		for k := range v.Txns {
			if err := pass(v.Txns[k].GTID, bytes.NewReader(rest[:v.Txns[k].Size])); err != nil {
				return err
			}
			rest = rest[v.Txns[k].Size:]
		}
	case completed:
		return pass(v.Txns[0].GTID, newChunks(w.log, w.fold, v.Txns[0], i))
	}
	return nil
}
