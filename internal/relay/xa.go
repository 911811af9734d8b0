package relay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/phxsql/phxsql/internal/binlog"
)

// A two-phase XA transaction stands in a binlog as two, each with a GTID:
//
//	XA START X'..',X'..',N | rows | XA END .. | XA_PREPARE event          the prepared rows
//	XA COMMIT X'..',X'..',N   or   XA ROLLBACK X'..',X'..',N              the decision
//
// XA COMMIT .. ONE PHASE is a single one that looks like the first, but for a
// byte in its last event. All of the first may be within a compressed payload.

// xaKind says what a transaction is to XA.
type xaKind uint8

const (
	xaNone     xaKind = iota
	xaPrepared        // rows that wait for a decision
	xaOnePhase        // rows that were committed at once
	xaDecided         // the decision about rows that were prepared
	numXAKinds = iota
)

const (
	// maxXAQuery limits the XA statements that are looked at: their identifiers
	// have 128 bytes, twice that in hexadecimal.
	maxXAQuery = 4096
	// maxZstdWindow limits the memory for reading a compressed payload. It is what
	// the highest level of compression needs; what needs more is an error.
	maxZstdWindow = 128 << 20
)

// errPayload says that a compressed payload cannot be read.
var errPayload = errors.New("malformed payload")

// xaReader finds out what transactions are to XA. It is used again to spare the
// memory of decompression; the zero value is ready. It is not for several
// goroutines at once.
type xaReader struct {
	br *bufio.Reader
	z  *zstd.Decoder

	id   string // the transaction's identifier, as in SQL: X'..',X'..',N
	kind xaKind
}

// close frees what decompression took.
func (x *xaReader) close() {
	if x.z != nil {
		x.z.Close()
	}
}

// read tells what the transaction whose events r gives is to XA. The events of all
// others are not read beyond the first behind the GTID.
func (x *xaReader) read(r io.Reader) (id string, kind xaKind, err error) {
	x.id, x.kind = "", xaNone
	if x.br == nil {
		x.br = bufio.NewReader(nil)
	}
	x.br.Reset(r)
	if err := x.events(x.br, binlog.ChecksumSize); err != nil {
		return "", xaNone, fmt.Errorf("read XA transaction: %w", err)
	}
	if x.kind == xaNone {
		return "", xaNone, nil // it has no end, or is none
	}
	return x.id, x.kind, nil
}

// events reads events to their end, or until it is clear that they are of no XA
// transaction. Those of a payload have no checksums.
func (x *xaReader) events(br *bufio.Reader, checksum int) error {
	for x.kind == xaNone {
		head, err := br.Peek(binlog.HeaderSize)
		if errors.Is(err, io.EOF) && len(head) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		h, err := binlog.ParseHeader(head)
		if err != nil {
			return err
		}
		more, err := x.event(br, h, checksum)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// event reads one event, and reports whether the next one matters.
func (x *xaReader) event(br *bufio.Reader, h binlog.Header, checksum int) (more bool, err error) {
	size := int(h.Size) - binlog.HeaderSize
	_, _ = br.Discard(binlog.HeaderSize) // peeked: cannot fail
	switch {
	case h.Type == binlog.GTID, h.Type == binlog.GTIDTagged:
	case h.Type == binlog.TransactionPayload && checksum != 0:
		return false, x.payload(io.LimitReader(br, int64(size-checksum)))
	case h.Type == binlog.Query && size <= maxXAQuery && size > checksum:
		body := make([]byte, size)
		if _, err := io.ReadFull(br, body); err != nil {
			return false, err
		}
		sql, _ := queryText(body[:size-checksum])
		return x.query(sql), nil
	case h.Type == binlog.XAPrepare && size > checksum:
		onePhase, err := br.ReadByte()
		x.kind = xaPrepared
		if onePhase != 0 {
			x.kind = xaOnePhase
		}
		return false, err
	case x.id == "":
		return false, nil
	}
	_, err = br.Discard(size)
	return true, err
}

func (x *xaReader) query(sql string) (more bool) {
	for prefix, kind := range map[string]xaKind{"XA START ": xaNone, "XA COMMIT ": xaDecided, "XA ROLLBACK ": xaDecided} {
		if id, ok := strings.CutPrefix(sql, prefix); ok && x.id == "" {
			x.id, x.kind = id, kind
			return kind == xaNone
		}
	}
	return x.id != ""
}

// The head of a payload is made of fields, up to one of the type 0.
//
//	+-----------+-------------+-------+-----+-----------+---------+
//	| type      | length      | value | ... | 0         | payload |
//	| packed    | packed      |       |     |           |         |
//	+-----------+-------------+-------+-----+-----------+---------+
const (
	payloadEnd         = 0
	payloadCompression = 2
	payloadZstd        = 0
	payloadPlain       = 255
	maxPayloadFields   = 16
)

func (x *xaReader) payload(r io.Reader) error {
	br := bufio.NewReader(r)
	compression := uint64(payloadZstd)
	for range maxPayloadFields {
		field, err := readPacked(br)
		if err != nil {
			return err
		}
		if field == payloadEnd {
			return x.inside(br, compression)
		}
		n, err := readPacked(br)
		if err != nil {
			return err
		}
		if n > 9 {
			return fmt.Errorf("field %d of %d bytes: %w", field, n, errPayload)
		}
		value := make([]byte, n)
		if _, err := io.ReadFull(br, value); err != nil {
			return err
		}
		if field == payloadCompression {
			if compression, err = readPacked(bufio.NewReader(bytes.NewReader(value))); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("more than %d fields: %w", maxPayloadFields, errPayload)
}

// inside reads the events in a payload.
func (x *xaReader) inside(br *bufio.Reader, compression uint64) error {
	switch compression {
	case payloadPlain:
		return x.events(br, 0)
	case payloadZstd:
	default:
		return fmt.Errorf("compression of type %d: %w", compression, errPayload)
	}
	if x.z == nil {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return err
		}
		x.z = z
	}
	if err := x.z.Reset(br); err != nil {
		return err
	}
	return x.events(bufio.NewReader(x.z), 0)
}

// readPacked reads a length-encoded integer of the client protocol.
func readPacked(br *bufio.Reader) (uint64, error) {
	b, err := br.ReadByte()
	if err != nil {
		return 0, err
	}
	n := 0
	switch b {
	case 0xfb, 0xff:
		return 0, fmt.Errorf("packed integer: %w", errPayload)
	case 0xfc:
		n = 2
	case 0xfd:
		n = 3
	case 0xfe:
		n = 8
	default:
		return uint64(b), nil
	}
	var full [8]byte
	_, err = io.ReadFull(br, full[:n])
	return binary.LittleEndian.Uint64(full[:]), err
}

// mayBeXA reports whether the transaction that begins with the events may be one
// of XA: it is, or too little of it is there to say. It costs little and allocates
// nothing.
func mayBeXA(events []byte) bool {
	for range 2 { // the GTID and what follows it
		if len(events) < binlog.HeaderSize {
			return true
		}
		h, err := binlog.ParseHeader(events)
		if err != nil {
			return false
		}
		switch h.Type {
		case binlog.GTID, binlog.GTIDTagged:
			events = events[min(int(h.Size), len(events)):]
			continue
		case binlog.TransactionPayload:
			return true
		case binlog.Query:
			if h.Size > binlog.HeaderSize+maxXAQuery || h.Size < binlog.HeaderSize+binlog.ChecksumSize {
				return false
			}
			return len(events) < int(h.Size) ||
				bytes.HasPrefix(queryBytes(events[binlog.HeaderSize:h.Size-binlog.ChecksumSize]), []byte("XA "))
		}
		return false
	}
	return false
}
