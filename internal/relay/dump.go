package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/paxos"
)

// sendBuffer is how much is gathered for one write to a replica, in bytes.
const sendBuffer = 128 << 10

// maxFilePos is where a new file name is made up, at the border of two
// transactions. It keeps positions within the 32 bits that replicas of every
// version count in.
const maxFilePos = 1 << 30

// dump is one replica's stream of transactions.
type dump struct {
	s      *Source
	ctx    context.Context
	at     checkpoint // where it began
	holes  holes
	lost   *gtid.Set // prepared by XA, missing and undecided; nil: not known yet
	xa     xaReader
	out    eventWriter
	next   paxos.Instance
	fold   fold
	value  entry.Value
	v2     bool // the replica understands version 2 heartbeats
	period time.Duration
	beat   time.Time // when something was sent last
	file   int
}

// dump streams to one replica until it leaves, the context ends or it must be
// refused.
func (s *Source) dump(ctx context.Context, w *wire, r dumpRequest, period time.Duration) error {
	at, forgotten, err := s.admit(ctx, r.executed)
	if err != nil {
		var diverged *DivergenceError
		var trimmed *TrimmedError
		if errors.As(err, &diverged) || errors.As(err, &trimmed) {
			s.logger.Error("replica_refused", "error", err)
			if s.o.OnRefuse != nil {
				s.o.OnRefuse(err)
			}
			return errors.Join(err, w.fail(1236, "HY000", err.Error()))
		}
		return err
	}
	d := &dump{
		s: s, ctx: ctx, at: at, holes: newHoles(r.executed, at.executed), next: at.next, fold: at.fold,
		v2: r.flags&dumpHeartbeatV2 != 0, period: period,
	}
	d.out = eventWriter{w: bufio.NewWriterSize(w.conn, sendBuffer), seq: w.seq}
	s.logger.Info("replica_attached", "server_id", r.serverID, "from", at.next)
	s.dumps.Add(1)
	s.replicas.Add(1)
	defer s.replicas.Add(-1)
	defer d.xa.close()
	return d.run(forgotten)
}

// admit judges a replica and finds where it begins.
func (s *Source) admit(ctx context.Context, set *gtid.Set) (at checkpoint, forgotten *gtid.Set, err error) {
	if err := s.judge(ctx, set); err != nil {
		return checkpoint{}, nil, err
	}
	return s.journal.start(set)
}

func (d *dump) run(forgotten *gtid.Set) error {
	if err := d.begin(); err != nil {
		return err
	}
	if err := d.remind(forgotten); err != nil {
		return err
	}
	for {
		for end := d.s.log.Chosen(); d.next <= end; d.next++ {
			if err := d.send(d.next); err != nil {
				return fmt.Errorf("serve instance %d: %w", d.next, err)
			}
			if err := d.heartbeatWhenDue(); err != nil {
				return err
			}
		}
		if err := d.out.flush(); err != nil {
			return err
		}
		d.s.through.Store(uint64(d.next - 1))
		if err := d.wait(); err != nil {
			return err
		}
	}
}

// wait waits for the next instance and sends heartbeats meanwhile.
func (d *dump) wait() error {
	if d.period <= 0 {
		return d.s.log.WaitChosen(d.ctx, d.next)
	}
	for {
		ctx, cancel := context.WithTimeout(d.ctx, d.period)
		err := d.s.log.WaitChosen(ctx, d.next)
		cancel()
		if err == nil || d.ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err := d.heartbeat(); err != nil {
			return err
		}
	}
}

// begin sends what a replica expects first: the name of a file and how its
// events are encoded. Neither has a position.
func (d *dump) begin() error {
	if err := d.rotate(); err != nil {
		return err
	}
	o := &d.s.o
	// Created is zero: otherwise the replica drops its temporary tables.
	b := binlog.AppendFormatDescription(nil, o.ServerVersion, o.ServerID, time.Now(), time.Time{}, 0, 0)
	if err := d.out.write(b); err != nil {
		return err
	}
	d.out.pos = uint64(binlog.MagicSize)
	d.beat = time.Now()
	return d.out.flush()
}

func (d *dump) fileName() string { return fmt.Sprintf("chosen.%06d", d.file) }

// rotate goes on to a new file name.
func (d *dump) rotate() error {
	d.file++
	err := d.out.write(binlog.AppendRotate(nil, d.fileName(), uint64(binlog.MagicSize), d.s.o.ServerID))
	d.out.pos = uint64(binlog.MagicSize)
	return err
}

// heartbeatWhenDue keeps the replica patient while values pass that send it
// nothing.
func (d *dump) heartbeatWhenDue() error {
	if d.period <= 0 || time.Since(d.beat) < d.period {
		return nil
	}
	return d.heartbeat()
}

func (d *dump) heartbeat() error {
	pos := d.out.pos
	var b []byte
	if d.v2 {
		b = binlog.AppendHeartbeatV2(nil, d.fileName(), pos, d.s.o.ServerID)
	} else {
		b = binlog.AppendHeartbeat(nil, d.fileName(), uint32(pos), d.s.o.ServerID)
	}
	if err := d.out.write(b); err != nil {
		return err
	}
	d.out.pos = pos // a heartbeat stands in no file
	d.beat = time.Now()
	return d.out.flush()
}

// send passes on what the entry at i makes visible.
func (d *dump) send(i paxos.Instance) error {
	e, err := d.s.log.Read(i)
	if err != nil {
		return err
	}
	if e.Kind != paxos.Normal {
		return nil
	}
	v := &d.value
	if err := v.Decode(e.Data); err != nil {
		return err
	}
	switch d.fold.apply(i, v) {
	case whole:
		return d.sendWhole(v)
	case completed:
		return d.sendChunks(v.Txns[0], i)
	case aside:
		if v.Kind == entry.Audit && d.s.o.HoldForAudit != nil {
			if err := d.out.flush(); err != nil {
				return err
			}
			d.s.o.HoldForAudit(d.ctx, v.Events)
		}
	}
	return nil
}

func (d *dump) sendWhole(v *entry.Value) error {
	rest := v.Events
	for k := range v.Txns {
		t := &v.Txns[k]
		events := rest[:t.Size]
		rest = rest[t.Size:]
		if d.holes.has(t.GTID) {
			continue
		}
		if err := d.sendEvents(t, events); err != nil {
			return err
		}
		if err := d.sent(t); err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) sendEvents(t *entry.Txn, events []byte) error {
	if d.holes.within() {
		forgotten, err := d.forgotten(t, bytes.NewReader(events), events)
		if err != nil {
			return err
		}
		if forgotten {
			return d.sendEmpty(events)
		}
	}
	return d.out.write(events)
}

// sendChunks reads the chunks of a transaction a second time, now that the last
// one is chosen, and passes them on one at a time.
func (d *dump) sendChunks(t entry.Txn, last paxos.Instance) error {
	if d.holes.has(t.GTID) {
		return nil
	}
	c := newChunks(d.s.log, d.fold, t, last)
	events, err := c.next()
	if err != nil {
		return err
	}
	if d.holes.within() {
		forgotten, err := d.forgotten(&t, newChunks(d.s.log, d.fold, t, last), events)
		if err != nil {
			return err
		}
		if forgotten {
			return errors.Join(d.sendEmpty(events), d.sent(&t))
		}
	}
	for err == nil {
		if err = d.out.write(events); err == nil {
			events, err = c.next()
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return d.sent(&t)
}

// sent ends a transaction.
func (d *dump) sent(t *entry.Txn) error {
	if d.out.inside() {
		return fmt.Errorf("transaction %v ends within an event: %w", t.GTID, entry.ErrMalformed)
	}
	d.s.txns.Add(1)
	d.s.bytes.Add(t.Size)
	d.beat = time.Now()
	if d.out.pos > maxFilePos {
		return d.rotate()
	}
	return nil
}

// eventWriter packs a stream of events into packets. Events may come in pieces
// of any size, and one of any size needs no memory here.
type eventWriter struct {
	w   *bufio.Writer
	seq byte
	pos uint64 // what a replica has counted: 4 plus the sizes of events

	head  [binlog.HeaderSize]byte // of an event that is only begun
	nhead int
	left  uint32 // bytes of the event that are not written yet
	frame int    // bytes of the frame that are not written yet
	more  bool   // the frame is a full one: another must follow

	framed [frameHeader]byte // scratch: a local one would be allocated each time
}

// inside reports whether an event is only partly written.
func (o *eventWriter) inside() bool { return o.left > 0 || o.nhead > 0 }

func (o *eventWriter) flush() error { return o.w.Flush() }

func (o *eventWriter) write(b []byte) error {
	for len(b) > 0 {
		if o.left == 0 {
			head := b
			if o.nhead > 0 || len(b) < binlog.HeaderSize {
				n := copy(o.head[o.nhead:], b)
				o.nhead += n
				b = b[n:]
				if o.nhead < binlog.HeaderSize {
					return nil
				}
				head = o.head[:]
			}
			if err := o.begin(head); err != nil {
				return err
			}
			if o.nhead > 0 {
				o.nhead = 0
				if err := o.body(o.head[:]); err != nil {
					return err
				}
			}
			continue
		}
		n := min(len(b), int(o.left))
		if err := o.body(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// begin starts the packet of an event whose header is given.
func (o *eventWriter) begin(head []byte) error {
	h, err := binlog.ParseHeader(head)
	if err != nil {
		return err
	}
	o.left = h.Size
	o.pos += uint64(h.Size)
	if err := o.startFrame(1 + int(h.Size)); err != nil {
		return err
	}
	o.frame--
	return o.w.WriteByte(packetOK)
}

func (o *eventWriter) startFrame(payload int) error {
	n := min(payload, maxFrame)
	o.frame, o.more = n, n == maxFrame
	o.framed = [frameHeader]byte{byte(n), byte(n >> 8), byte(n >> 16), o.seq}
	o.seq++
	_, err := o.w.Write(o.framed[:])
	return err
}

// body writes bytes of the current event, over the borders of frames.
func (o *eventWriter) body(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), o.frame)
		if _, err := o.w.Write(b[:n]); err != nil {
			return fmt.Errorf("write to replica: %w", err)
		}
		b = b[n:]
		o.frame -= n
		o.left -= uint32(n)
		if o.frame == 0 && o.more {
			if err := o.startFrame(int(o.left)); err != nil {
				return err
			}
		}
	}
	return nil
}
