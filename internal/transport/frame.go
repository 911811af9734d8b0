package transport

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/phxsql/phxsql/paxos"
)

// A frame, all integers little-endian:
//
//	0  length of the payload u32
//	4  kind u8
//	5  group u32 (messages; else 0)
//	9  payload
//
// The header never changes between versions of the protocol; the first frame of
// each side says which version follows.

// frameKind says what the payload of a frame is.
type frameKind uint8

const (
	frameHello    frameKind = 1 // JSON Hello; first frame of the dialer
	frameWelcome  frameKind = 2 // JSON Hello; first frame of the acceptor if it consents
	frameRefuse   frameKind = 3 // JSON refusal; last frame of either side
	frameMessage  frameKind = 4 // one paxos.Message
	frameApp      frameKind = 5 // opaque bytes
	frameRequest  frameKind = 6 // call u64, length of the method u8, method, payload
	frameResponse frameKind = 7 // call u64, status u8, payload or text of the error
	framePing     frameKind = 8 // token u64
	framePong     frameKind = 9 // token u64; 0 says only "alive"
)

// Limits of payloads in bytes. A frame above its limit ends the connection.
const (
	// MaxMessage is the largest encoded consensus message. A promise must tell all
	// that is in flight in one message: paxos.Config.MaxInflight and, because that is
	// looked at before a value is added, one value more. Both are 64 MiB at most.
	MaxMessage = 2*paxos.MaxEntryData + 4<<20
	// MaxApp is the largest announcement.
	MaxApp = 1 << 20
	// MaxCall is the largest request or result of a call.
	MaxCall = 4 << 20

	maxHello     = 4 << 10
	maxMethod    = 64
	callOverhead = 9 + maxMethod
	headerSize   = 9
	tokenSize    = 8
)

// header is the decoded head of a frame.
type header struct {
	kind  frameKind
	group paxos.Group
	size  int
}

// limit returns the largest payload of a kind, and false for an unknown kind.
func (k frameKind) limit() (int, bool) {
	switch k {
	case frameHello, frameWelcome, frameRefuse:
		return maxHello, true
	case frameMessage:
		return MaxMessage, true
	case frameApp:
		return MaxApp, true
	case frameRequest, frameResponse:
		return MaxCall + callOverhead, true
	case framePing, framePong:
		return tokenSize, true
	}
	return 0, false
}

// parseHeader reads the head of a frame from exactly headerSize bytes.
func parseHeader(b []byte) (header, error) {
	h := header{kind: frameKind(b[4]), group: paxos.Group(binary.LittleEndian.Uint32(b[5:]))}
	n := binary.LittleEndian.Uint32(b)
	limit, ok := h.kind.limit()
	if !ok {
		return header{}, fmt.Errorf("read frame: kind %d: %w", b[4], ErrMalformed)
	}
	if uint64(n) > uint64(limit) {
		return header{}, fmt.Errorf("read frame: %d bytes of kind %d, limit %d: %w", n, b[4], limit, ErrMalformed)
	}
	h.size = int(n)
	return h, nil
}

func appendHeader(b []byte, kind frameKind, group paxos.Group, size int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = append(b, byte(kind))
	return binary.LittleEndian.AppendUint32(b, uint32(group))
}

func appendFrame(b []byte, kind frameKind, payload []byte) []byte {
	return append(appendHeader(b, kind, 0, len(payload)), payload...)
}

func appendToken(b []byte, kind frameKind, token uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendHeader(b, kind, 0, tokenSize), token)
}

func appendMessage(b []byte, group paxos.Group, m *paxos.Message, size int) []byte {
	return m.AppendTo(appendHeader(b, frameMessage, group, size))
}

func parseToken(b []byte) (uint64, error) {
	if len(b) != tokenSize {
		return 0, fmt.Errorf("read token: %d bytes: %w", len(b), ErrMalformed)
	}
	return binary.LittleEndian.Uint64(b), nil
}

// request is a decoded call; result a decoded answer. Both point into the frame.
type request struct {
	id      uint64
	method  string
	payload []byte
}

type result struct {
	id      uint64
	failed  bool
	payload []byte // result, or text of the error
}

// size is the length of the whole frame.
func (r request) size() int { return headerSize + 9 + len(r.method) + len(r.payload) }

// size is the length of the whole frame.
func (r result) size() int { return headerSize + 9 + len(r.payload) }

func appendRequest(b []byte, r request) []byte {
	b = appendHeader(b, frameRequest, 0, r.size()-headerSize)
	b = binary.LittleEndian.AppendUint64(b, r.id)
	b = append(b, byte(len(r.method)))
	b = append(b, r.method...)
	return append(b, r.payload...)
}

func parseRequest(b []byte) (request, error) {
	if len(b) < 9 || b[8] > maxMethod || len(b) < 9+int(b[8]) {
		return request{}, fmt.Errorf("read request: %d bytes: %w", len(b), ErrMalformed)
	}
	n := 9 + int(b[8])
	return request{id: binary.LittleEndian.Uint64(b), method: string(b[9:n]), payload: b[n:]}, nil
}

func appendResult(b []byte, r result) []byte {
	b = appendHeader(b, frameResponse, 0, r.size()-headerSize)
	b = binary.LittleEndian.AppendUint64(b, r.id)
	var failed byte
	if r.failed {
		failed = 1
	}
	return append(append(b, failed), r.payload...)
}

func parseResult(b []byte) (result, error) {
	if len(b) < 9 || b[8] > 1 {
		return result{}, fmt.Errorf("read result: %d bytes: %w", len(b), ErrMalformed)
	}
	return result{id: binary.LittleEndian.Uint64(b), failed: b[8] == 1, payload: b[9:]}, nil
}

const (
	readBuffer = 64 << 10
	// readPiece is how much of a large frame is read between two calls of
	// progress.
	readPiece = 1 << 20
)

// frameReader cuts frames out of a stream. A small frame is lent from the buffer;
// a large one gets memory of its own.
type frameReader struct {
	r        *bufio.Reader
	lent     int    // bytes of the buffer that the last frame still occupies
	progress func() // called while a large frame comes in
}

// frame is one frame. Unless owned is set, the payload is valid until the next
// one is read.
type frame struct {
	header
	payload []byte
	owned   bool
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, readBuffer), progress: func() {}}
}

// next reads one frame. io.EOF means that the stream ended between frames.
func (f *frameReader) next() (frame, error) {
	f.release()
	b, err := f.r.Peek(headerSize)
	if err != nil {
		if len(b) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return frame{}, err
	}
	if headerSize+h.size > readBuffer {
		return f.large(h)
	}
	b, err = f.r.Peek(headerSize + h.size)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	f.lent = len(b)
	return frame{header: h, payload: b[headerSize:]}, nil
}

func (f *frameReader) large(h header) (frame, error) {
	f.r.Discard(headerSize) // buffered: cannot fail
	p := make([]byte, h.size)
	for at := 0; at < len(p); {
		n, err := io.ReadFull(f.r, p[at:min(at+readPiece, len(p))])
		at += n
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return frame{}, err
		}
		f.progress()
	}
	return frame{header: h, payload: p, owned: true}, nil
}

func (f *frameReader) release() {
	f.r.Discard(f.lent) // buffered: cannot fail
	f.lent = 0
}

// more reports whether a whole small frame can be read without waiting.
func (f *frameReader) more() bool {
	f.release()
	if f.r.Buffered() < headerSize {
		return false
	}
	b, _ := f.r.Peek(headerSize)
	return f.r.Buffered()-headerSize >= int(binary.LittleEndian.Uint32(b))
}
