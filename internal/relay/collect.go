package relay

import (
	"fmt"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/semisync"
)

// beginTxn reads a GTID event and decides where its transaction goes.
func (s *stream) beginTxn(h binlog.Header) error {
	event, err := s.whole(h)
	if err != nil {
		return err
	}
	tx, err := binlog.ParseGTID(event)
	if err != nil {
		return fmt.Errorf("read dump: %w: transaction before %s:%d: %w", ErrUnfit, s.file, s.pos, err)
	}
	s.txn = entry.Txn{GTID: tx.GTID, Size: tx.Length}
	s.left = tx.Length
	switch {
	case s.t.proposed.Contains(tx.GTID):
		s.mode = skipping
	case s.t.before.Contains(tx.GTID):
		// The log has another transaction of this name. To acknowledge this one
		// would lose it.
		return fmt.Errorf("read dump: %w: %v is in the log from before", ErrDiverged, tx.GTID)
	case tx.Length > uint64(s.t.o.ChunkSize):
		if err := s.proposeGroup(); err != nil {
			return err
		}
		s.mode, s.offset = chunking, 0
		s.bl.Start(s.t.o.Epoch, s.t.o.Node, s.t.o.ChunkSize)
	default:
		if err := s.joinGroup(int(tx.Length), len(event)); err != nil {
			return err
		}
		s.mode = grouping
	}
	sent := s.t.begin()
	if s.mode != skipping {
		// A new transaction ends after all that came before, whatever was
		// left out on this connection.
		if sent.File == s.file && s.pos < sent.Pos {
			s.pos = sent.Pos
			s.moveTo(h.LogPos)
		}
		s.bl.Append(event)
	}
	return s.took(len(event))
}

// joinGroup makes room for a transaction in the group that gathers, or begins a
// new one. What is there does not wait for a transaction that has not wholly
// arrived.
func (s *stream) joinGroup(size, have int) error {
	arrived := s.br.Buffered() >= size-have
	if s.bl.Started() && (!arrived || s.bl.Len()+size > s.t.o.GroupSize) {
		if err := s.proposeGroup(); err != nil {
			return err
		}
	}
	if !s.bl.Started() {
		room := size
		if arrived {
			room = min(have+s.br.Buffered(), s.t.o.GroupSize) // what may join
		}
		s.bl.Start(s.t.o.Epoch, s.t.o.Node, room)
	}
	return nil
}

// inside reads an event that belongs to the transaction.
func (s *stream) inside(h binlog.Header) error {
	if h.Type == binlog.Heartbeat || h.Type == binlog.HeartbeatV2 {
		return s.heartbeat(h)
	}
	if uint64(h.Size) > s.left {
		return fmt.Errorf("read dump: %w: %v event of %d bytes at %s:%d, only %d are left of transaction %v",
			ErrUnfit, h.Type, h.Size, s.file, h.LogPos, s.left, s.txn.GTID)
	}
	switch s.mode {
	case skipping:
		if err := s.discard(h); err != nil {
			return err
		}
	case grouping:
		event := s.bl.Extend(int(h.Size))
		if err := s.read(event); err != nil {
			return err
		}
		sayUTF8(event)
		if err := s.endEvent(h); err != nil {
			return err
		}
	case chunking:
		if err := s.readChunks(int(h.Size)); err != nil {
			return err
		}
		if err := s.endEvent(h); err != nil {
			return err
		}
	}
	return s.took(int(h.Size))
}

// readChunks reads n bytes of the event into as many chunks as it takes. A full
// chunk is proposed only when more follows, so that the last one is never empty.
func (s *stream) readChunks(n int) error {
	for n > 0 {
		room := s.t.o.ChunkSize - s.bl.Len()
		if room <= 0 {
			size := s.bl.Len()
			data := s.bl.FinishChunk(s.txn, s.offset)
			s.offset += uint64(size)
			if err := s.t.propose(data, s.bl.Txns(), semisync.Position{}, size); err != nil {
				return err
			}
			s.bl.Start(s.t.o.Epoch, s.t.o.Node, s.t.o.ChunkSize)
			continue
		}
		k := min(n, room)
		if err := s.read(s.bl.Extend(k)); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// took counts n bytes of the transaction and ends it with the last of them.
func (s *stream) took(n int) error {
	s.left -= uint64(n)
	if s.left > 0 {
		return nil
	}
	end := semisync.Position{File: s.file, Pos: s.pos}
	was := s.mode
	s.mode = between
	switch was {
	case skipping:
		// Everything before it must be on its way: the position says so.
		if err := s.proposeGroup(); err != nil {
			return err
		}
		s.t.skipped(end)
	case grouping:
		s.bl.EndTxn(s.txn)
		s.end = end
		if s.bl.Len() >= s.t.o.GroupSize {
			return s.proposeGroup()
		}
	case chunking:
		size := s.bl.Len()
		data := s.bl.FinishChunk(s.txn, s.offset)
		return s.t.propose(data, s.bl.Txns(), end, size)
	}
	return nil
}

// proposeGroup proposes the whole transactions that have gathered.
func (s *stream) proposeGroup() error {
	if !s.bl.Started() {
		return nil
	}
	size := s.bl.Len()
	data := s.bl.Finish()
	return s.t.propose(data, s.bl.Txns(), s.end, size)
}
