package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/phxsql/phxsql/internal/binlog"
	"github.com/phxsql/phxsql/internal/entry"
	"github.com/phxsql/phxsql/internal/semisync"
)

// errStreamEnded says that the server ended the dump without an error.
var errStreamEnded = errors.New("server ended the dump")

// packetHead is what stands before an event: frame, OK byte, semi-sync header.
const packetHead = frameHeader + 1 + semisync.HeaderSize

// maxControl limits the events that are read as a whole: GTID, rotate,
// heartbeat, format description, previous GTIDs of a server with very many
// intervals.
const maxControl = 64 << 20

// mode says what happens to the events of the transaction that is being read.
type mode uint8

const (
	between  mode = iota // no transaction is being read
	grouping             // into a Transactions value
	chunking             // into Chunk values
	skipping             // nowhere: it was proposed before
)

// stream reads the events of one dump. Event bytes go from the socket's buffer
// straight into the value that they will be part of.
type stream struct {
	t  *Tail
	br *bufio.Reader

	frame   int  // bytes of the current frame that are not read yet
	more    bool // the current frame is a full one: another follows
	need    bool // the current event has the need-ACK flag
	control []byte

	file string
	pos  uint64 // end of the newest event in file

	mode mode
	txn  entry.Txn
	left uint64 // bytes of the transaction that are not read yet

	bl     entry.Builder
	end    semisync.Position // end of the newest whole transaction in bl
	offset uint64            // of the chunk in bl
}

func newStream(t *Tail, br *bufio.Reader) *stream { return &stream{t: t, br: br} }

// first reads the packet that a dump begins with. It shows whether the server
// takes us for a semi-synchronous replica.
func (s *stream) first() error { return s.next() }

// run reads until the connection ends or something is wrong with it.
func (s *stream) run() error {
	for {
		if s.idle() {
			// While the log works on this group, the next one gathers.
			if err := s.proposeGroup(); err != nil {
				return err
			}
		}
		if err := s.next(); err != nil {
			return err
		}
	}
}

// idle reports whether whole transactions are here and nothing more has arrived:
// they go now.
func (s *stream) idle() bool {
	return s.mode == between && s.bl.Started() && s.br.Buffered() < packetHead+binlog.HeaderSize
}

// next reads one event.
func (s *stream) next() error {
	h, err := s.header()
	if err != nil {
		return err
	}
	if s.mode != between {
		return s.inside(h)
	}
	switch h.Type {
	case binlog.GTID, binlog.GTIDTagged:
		return s.beginTxn(h)
	case binlog.Rotate:
		event, err := s.whole(h)
		if err != nil {
			return err
		}
		if s.file, s.pos, err = binlog.ParseRotate(event); err != nil {
			return fmt.Errorf("read dump: %w", err)
		}
		return nil
	case binlog.FormatDescription, binlog.PreviousGTIDs, binlog.Stop:
		return s.discard(h)
	case binlog.Heartbeat, binlog.HeartbeatV2:
		return s.heartbeat(h)
	}
	if h.Flags&binlog.FlagIgnorable != 0 {
		return s.discard(h)
	}
	return fmt.Errorf("read dump: %w: %v event at %s:%d is in no transaction with a GTID", ErrUnfit, h.Type, s.file, h.LogPos)
}

// header reads up to the event and looks at its header without consuming it.
func (s *stream) header() (binlog.Header, error) {
	b, err := s.br.Peek(frameHeader + 1)
	if err != nil {
		return binlog.Header{}, fmt.Errorf("read dump: %w", err)
	}
	n := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if n == 0 || b[frameHeader] != packetOK || n < packetHead-frameHeader+binlog.HeaderSize {
		return binlog.Header{}, s.notAnEvent(n)
	}
	if b, err = s.br.Peek(packetHead + binlog.HeaderSize); err != nil {
		return binlog.Header{}, fmt.Errorf("read dump: %w", err)
	}
	if s.need, err = semisync.ParseHeader(b[frameHeader+1:]); err != nil {
		return binlog.Header{}, fmt.Errorf("read dump: %w: the server does not treat the agent as a semi-synchronous replica: %w", ErrUnfit, err)
	}
	h, err := binlog.ParseHeader(b[packetHead:])
	if err != nil {
		return binlog.Header{}, fmt.Errorf("read dump: %w", err)
	}
	_, _ = s.br.Discard(packetHead) // peeked: cannot fail
	s.frame, s.more = n-(packetHead-frameHeader), n == maxFrame
	if !s.more && int(h.Size) != s.frame || s.more && int(h.Size) < s.frame {
		return binlog.Header{}, fmt.Errorf("read dump: event of %d bytes in a packet of %d: %w", h.Size, n, errProtocol)
	}
	return h, nil
}

// notAnEvent reads the packet that ends a dump.
func (s *stream) notAnEvent(n int) error {
	b := make([]byte, frameHeader+min(n, 1024))
	if _, err := io.ReadFull(s.br, b); err != nil {
		return fmt.Errorf("read dump: %w", err)
	}
	b = b[frameHeader:]
	switch {
	case isEOF(b):
		return errStreamEnded
	case len(b) > 0 && b[0] == packetError:
		err := parseServerError(b)
		if e := (*ServerError)(nil); errors.As(err, &e) && e.Code == 1236 {
			// Fatal by the server's own account: purged, or another
			// connection came with this replica's UUID.
			return fmt.Errorf("read dump: %w: %w", ErrUnfit, err)
		}
		return fmt.Errorf("read dump: %w", err)
	}
	return fmt.Errorf("read dump: packet of %d bytes is not an event: %w", n, errProtocol)
}

// read fills p with the next bytes of the event, over the borders of frames.
func (s *stream) read(p []byte) error {
	for len(p) > 0 {
		if s.frame == 0 {
			if err := s.nextFrame(); err != nil {
				return err
			}
		}
		n := min(len(p), s.frame)
		if _, err := io.ReadFull(s.br, p[:n]); err != nil {
			return fmt.Errorf("read dump: %w", err)
		}
		s.frame -= n
		p = p[n:]
	}
	return nil
}

func (s *stream) nextFrame() error {
	if !s.more {
		return fmt.Errorf("read dump: event goes on after its last frame: %w", errProtocol)
	}
	var head [frameHeader]byte
	if _, err := io.ReadFull(s.br, head[:]); err != nil {
		return fmt.Errorf("read dump: %w", err)
	}
	s.frame = int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	s.more = s.frame == maxFrame
	return nil
}

// endEvent makes sure that the event's packet ends where the event does, and
// moves the position.
func (s *stream) endEvent(h binlog.Header) error {
	if s.more && s.frame == 0 {
		if err := s.nextFrame(); err != nil {
			return err
		}
	}
	if s.frame != 0 || s.more {
		return fmt.Errorf("read dump: %d bytes after an event: %w", s.frame, errProtocol)
	}
	if h.LogPos != 0 && h.Flags&binlog.FlagArtificial == 0 {
		s.moveTo(h.LogPos)
	}
	return nil
}

// moveTo takes the 32 bits of a position that an event has. The rest follows
// from positions only going forward within a file.
func (s *stream) moveTo(low uint32) {
	pos := s.pos&^0xffffffff | uint64(low)
	if pos < s.pos {
		pos += 1 << 32
	}
	s.pos = pos
}

// whole reads a small event into memory that is used again.
func (s *stream) whole(h binlog.Header) ([]byte, error) {
	if h.Size > maxControl {
		return nil, fmt.Errorf("read dump: %v event of %d bytes, limit %d: %w", h.Type, h.Size, maxControl, errProtocol)
	}
	if cap(s.control) < int(h.Size) {
		s.control = make([]byte, h.Size)
	}
	event := s.control[:h.Size]
	if err := s.read(event); err != nil {
		return nil, err
	}
	return event, s.endEvent(h)
}

func (s *stream) discard(h binlog.Header) error {
	for left := int(h.Size); left > 0; {
		if s.frame == 0 {
			if err := s.nextFrame(); err != nil {
				return err
			}
		}
		n, err := s.br.Discard(min(left, s.frame))
		if err != nil {
			return fmt.Errorf("read dump: %w", err)
		}
		s.frame -= n
		left -= n
	}
	return s.endEvent(h)
}

// heartbeat takes the position from version 2 only: it has all 64 bits.
func (s *stream) heartbeat(h binlog.Header) error {
	h.LogPos = 0
	event, err := s.whole(h)
	if err != nil {
		return err
	}
	file, pos, err := binlog.ParseHeartbeat(event)
	if err != nil {
		return fmt.Errorf("read dump: %w", err)
	}
	if h.Type == binlog.HeartbeatV2 && file == s.file && pos > s.pos {
		s.pos = pos
	}
	return nil
}
