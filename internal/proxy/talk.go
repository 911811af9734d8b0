package proxy

import "errors"

// phase is what a conversation is about.
type phase uint8

const (
	phaseGreeting phase = iota // the server's first packet has not come yet
	phaseLogin                 // the client's answer to it has not come yet
	phaseAuth                  // the authentication exchange, until OK or ERR
	phaseCommand               // commands and answers
	phaseOpaque                // not followed: TLS, compression, a stream, or a form that is not known
)

// talk follows one session's conversation in both directions, to know whose turn
// it is, and carries out the proxy's part in the authentication. It is told the
// bytes before they are sent on, and does no I/O. The caller locks it.
//
// Bytes of rows and of commands are never looked at but for the beginning of
// each packet. When something comes that it does not know, it turns opaque and
// passes everything on: it never stops a session in phaseCommand.
type talk struct {
	phase    phase
	greet    greeting
	caps     uint32 // what client and server have agreed on
	login    login
	fromUser half
	fromSrv  half

	lastSeq byte // of the packet that came last, as the client counts
	srvSeq  byte // of the server's packet that came last
	turn    side // who sent the packet that came last
	sent    bool // the client has been sent something

	// Commands that the server has not answered fully. A client that sends
	// ahead more than fit in is not followed further.
	queue   [maxAhead]byte
	waiting int
	answer  answer
	status  uint16
	last    byte // the newest command, answered or not
}

// maxAhead is how many commands a client can send ahead of the answers.
const maxAhead = 32

type side uint8

const (
	nobody side = iota
	user
	server
)

// half is the position in one direction's stream of packets.
type half struct {
	skip   int  // payload bytes still to come
	goesOn bool // the next packet continues the last one's payload
	have   int  // bytes in part
	part   [headerSize + headSize]byte
}

// middle reports whether the stream stands inside a packet.
func (h *half) middle() bool { return h.skip > 0 || h.goesOn || h.have > 0 }

// errProtocol is wrapped by errors about a login that cannot be followed.
var errProtocol = errors.New("protocol violation")

// followServer takes bytes that the server has sent and that will be sent to
// the client next. In a login it rewrites sequence numbers in place.
func (t *talk) followServer(b []byte) {
	if len(b) == 0 {
		return
	}
	t.sent = true
	for len(b) > 0 && t.phase != phaseOpaque {
		if t.phase == phaseCommand {
			b = t.serverPackets(b)
		} else {
			b = t.serverLogin(b)
		}
	}
}

// serverPackets takes server bytes in phaseCommand and returns those that are
// left when the phase changes.
func (t *talk) serverPackets(b []byte) []byte {
	h := &t.fromSrv
	for len(b) > 0 && t.phase == phaseCommand {
		if h.skip > 0 {
			d := min(h.skip, len(b))
			h.skip -= d
			b = b[d:]
			continue
		}
		if b = t.rows(b); len(b) == 0 || h.skip > 0 {
			continue
		}
		used, head, n, ok := h.next(b)
		b = b[used:]
		if !ok {
			return nil
		}
		t.serverPacket(head, n)
	}
	return b
}

// rows skips packets that are rows for certain. It is what keeps large results
// cheap: five bytes of each row are read.
func (t *talk) rows(b []byte) []byte {
	h := &t.fromSrv
	if t.answer.stage != stageRows || h.have > 0 || h.goesOn || t.waiting == 0 {
		return b
	}
	for len(b) > headerSize {
		n := payloadLen(b)
		mark := b[headerSize]
		if n == 0 || n == maxPayload || mark == markEOF || mark == markERR {
			break
		}
		t.srvSeq = b[3]
		t.lastSeq, t.turn = b[3], server
		t.answer.begun = true
		end := headerSize + n
		if end > len(b) {
			h.skip = end - len(b)
			return nil
		}
		b = b[end:]
	}
	return b
}

// next cuts the beginning of a packet from b: its header and as much of its
// payload as an answer looks at. When b does not hold it all, it keeps the bytes
// and answers false. What it returns points into b or h.
func (h *half) next(b []byte) (used int, packet []byte, n int, ok bool) {
	if h.have == 0 && len(b) >= headerSize {
		n = payloadLen(b)
		if end := headerSize + min(n, headSize); len(b) >= end {
			h.skip = headerSize + n - end
			return end, b[:end], n, true
		}
	}
	for _, c := range b {
		h.part[h.have] = c
		h.have++
		used++
		if h.have < headerSize {
			continue
		}
		n = payloadLen(h.part[:])
		if end := headerSize + min(n, headSize); h.have == end {
			h.have = 0
			h.skip = headerSize + n - end
			return used, h.part[:end], n, true
		}
	}
	return used, nil, 0, false
}

func payloadLen(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// serverPacket takes the beginning of a packet in phaseCommand.
func (t *talk) serverPacket(packet []byte, n int) {
	h := &t.fromSrv
	t.lastSeq, t.turn, t.srvSeq = packet[3], server, packet[3]
	continued := h.goesOn
	h.goesOn = n == maxPayload
	if continued {
		return
	}
	if t.waiting == 0 {
		return // unsolicited: the server is about to close
	}
	switch t.answer.packet(t.queue[0], packet[headerSize:], n, t.caps) {
	case answerEnds:
		t.status = t.answer.status
		t.answer = answer{status: t.status}
		t.waiting--
		copy(t.queue[:], t.queue[1:t.waiting+1])
	case answerUnclear:
		t.phase = phaseOpaque
	}
}

// followClient takes bytes that the client has sent. It returns what is to be
// sent to the server now (usually b itself) and, in a login, what is to be sent
// to the client instead. An error means that the session must end; reply then
// holds the reason for the client.
func (t *talk) followClient(b []byte) (forward, reply []byte, err error) {
	if t.phase >= phaseCommand && len(t.login.in) > 0 { // sent ahead of the end of the login
		b = append(t.login.in, b...)
		t.login.in = nil
	}
	if t.phase == phaseCommand {
		forward, b = t.commands(b)
		if len(b) == 0 {
			return forward, nil, nil
		}
	}
	if t.phase == phaseOpaque {
		if forward == nil {
			return b, nil, nil
		}
		return append(forward[:len(forward):len(forward)], b...), nil, nil
	}
	more, reply, err := t.clientLogin(b)
	if forward == nil {
		return more, reply, err
	}
	return append(forward[:len(forward):len(forward)], more...), reply, err
}

// commands takes client bytes in phaseCommand. It returns what is to be
// forwarded, and what belongs to another phase. A beginning of a packet that
// does not show its command yet is kept back.
func (t *talk) commands(b []byte) (forward, rest []byte) {
	h := &t.fromUser
	if h.have > 0 {
		b = append(h.part[:h.have:h.have], b...)
		h.have = 0
	}
	for at := 0; at < len(b); {
		if h.skip > 0 {
			d := min(h.skip, len(b)-at)
			h.skip -= d
			at += d
			continue
		}
		n, done := t.command(b[at:])
		if t.phase != phaseCommand {
			return b[:at], b[at:]
		}
		if !done {
			h.have = copy(h.part[:], b[at:])
			return b[:at], nil
		}
		at += headerSize
		h.skip = n
	}
	return b, nil
}

// command takes the beginning of a client packet and returns its payload's
// length. It answers false when too few bytes are at hand.
func (t *talk) command(b []byte) (n int, ok bool) {
	h := &t.fromUser
	if len(b) < headerSize {
		return 0, false
	}
	n = payloadLen(b)
	file := t.waiting > 0 && t.answer.stage == stageFile
	switch {
	case file && n == 0 && !h.goesOn:
		t.answer.stage = stageFirst
	case file, h.goesOn, n == 0:
	case len(b) == headerSize:
		return 0, false
	default:
		if t.begin(b[headerSize]); t.phase != phaseCommand {
			return 0, false
		}
	}
	h.goesOn = n == maxPayload
	t.lastSeq, t.turn = b[3], user
	return n, true
}

// begin takes a new command.
func (t *talk) begin(cmd byte) {
	t.last = cmd
	switch {
	case cmd == comChangeUser:
		t.phase = phaseLogin
		t.login = login{change: true, nonce: t.login.nonce, key: t.login.key}
		return
	case !hasAnswer(cmd):
		return
	case isStream(cmd), t.waiting == maxAhead:
		t.phase = phaseOpaque
		return
	}
	t.queue[t.waiting] = cmd
	t.waiting++
}

// idle reports whether the client has had a full answer to everything it has
// asked and neither side is in the middle of a packet.
func (t *talk) idle() bool {
	return t.phase == phaseCommand && t.waiting == 0 && !t.fromUser.middle() && !t.fromSrv.middle()
}

// inTransaction reports whether the session holds something that closing it
// would destroy: an open transaction, or a cursor that the client is reading.
func (t *talk) inTransaction() bool { return t.status&(statusInTrans|statusCursor) != 0 }

// restless reports whether the client is in the middle of something although
// its commands are answered: it has prepared a statement, or sent a part of its
// parameters, and will execute it next.
func (t *talk) restless() bool { return t.last == comStmtPrepare || t.last == comLongData }

// errorSeq returns the sequence number with which an ERR packet may be sent to
// the client now, as the answer that it waits for. It answers false when an
// ERR packet would be misread.
func (t *talk) errorSeq() (byte, bool) {
	if t.fromUser.middle() || t.fromSrv.middle() {
		return 0, false
	}
	switch t.phase {
	case phaseGreeting:
		return 0, !t.sent
	case phaseAuth:
		return t.lastSeq + 1, t.turn == user && len(t.login.in) == 0 && len(t.login.seen) == 0
	case phaseCommand:
		switch {
		case t.waiting == 0 || t.answer.stage != stageFirst:
			return 0, false
		case t.waiting == 1 && t.turn == user:
			return t.lastSeq + 1, true
		case t.answer.begun:
			return t.srvSeq + 1, true
		}
		return 1, true // the answer to a command that was sent ahead
	}
	return 0, false
}
