package proxy

import "encoding/binary"

// Commands that are treated apart. Every other command gets one answer of the
// general form: OK, ERR, or result sets.
const (
	comQuit        = 0x01
	comQuery       = 0x03
	comFieldList   = 0x04
	comStatistics  = 0x09
	comChangeUser  = 0x11
	comBinlogDump  = 0x12
	comTableDump   = 0x13
	comStmtPrepare = 0x16
	comLongData    = 0x18
	comStmtClose   = 0x19
	comStmtFetch   = 0x1c
	comDumpGTID    = 0x1e
	comClone       = 0x20
)

// hasAnswer reports whether the server answers the command at all.
func hasAnswer(cmd byte) bool {
	return cmd != comQuit && cmd != comLongData && cmd != comStmtClose
}

// isStream reports whether the command turns the connection into something that
// is no longer a conversation of commands and answers.
func isStream(cmd byte) bool {
	return cmd == comBinlogDump || cmd == comDumpGTID || cmd == comTableDump || cmd == comClone
}

// stage is how far the answer to a command has come.
type stage uint8

const (
	stageFirst    stage = iota // the first packet of the answer, or of its next result, comes next
	stageColumns               // column definitions up to an EOF packet
	stageRows                  // rows up to an EOF or OK packet
	stagePrepared              // a known number of packets describe a prepared statement
	stageFile                  // the client is sending the file of LOAD DATA LOCAL
)

// answer follows the server's packets for one command. It is told the beginning
// of each packet only.
type answer struct {
	stage  stage
	begun  bool   // a packet of it has come
	left   uint32 // stagePrepared: packets to come
	status uint16 // of the last packet that carried one
}

// verdict says what a packet meant for the answer.
type verdict uint8

const (
	answerGoesOn verdict = iota
	answerEnds
	answerUnclear // the packet fits no form that is known: stop following
)

// headSize is how much of a payload is looked at: an OK packet's status stands
// behind two length-encoded integers.
const headSize = 1 + 9 + 9 + 2

// packet takes one packet of the answer to cmd: the first bytes of its payload
// (all of it or headSize) and its length.
func (a *answer) packet(cmd byte, head []byte, n int, caps uint32) verdict {
	a.begun = true
	if n == 0 {
		return answerUnclear
	}
	switch a.stage {
	case stageFirst:
		return a.first(cmd, head, n, caps)
	case stageColumns:
		return a.columnPacket(head, n)
	case stageRows:
		return a.row(head, n, caps)
	case stagePrepared:
		a.left--
		if a.left == 0 {
			return answerEnds
		}
		return answerGoesOn
	}
	return answerUnclear // a packet while the client sends its file
}

func (a *answer) first(cmd byte, head []byte, n int, caps uint32) verdict {
	if head[0] == markERR {
		return answerEnds
	}
	switch cmd {
	case comStatistics:
		return answerEnds
	case comStmtPrepare:
		return a.prepared(head, caps)
	case comFieldList, comStmtFetch:
		a.stage = stageRows
		return a.row(head, n, caps)
	}
	switch {
	case head[0] == markOK && n >= 7:
		return a.end(okStatus(head))
	case head[0] == markEOF && n < maxPayload:
		return a.end(endStatus(head, n, caps))
	case head[0] == markInfile && cmd == comQuery:
		a.stage = stageFile
		return answerGoesOn
	case caps&capOptionalMeta != 0 && head[0] != 1:
		return answerUnclear // a result set without its metadata
	case head[0] == markOK:
		return answerUnclear
	}
	a.stage = stageColumns
	if caps&capDeprecateEOF != 0 {
		a.stage = stageRows // definitions begin with 3, rows never with fe: no need to tell them apart
	}
	return answerGoesOn
}

func (a *answer) columnPacket(head []byte, n int) verdict {
	switch {
	case head[0] == markERR:
		return answerEnds
	case head[0] != markEOF || n != 5:
		return answerGoesOn
	}
	status, ok := eofStatus(head)
	if ok && status&statusCursor != 0 {
		return a.end(status, ok)
	}
	a.stage = stageRows
	return answerGoesOn
}

// row tells rows from the end of a result. A text row that begins with fe holds
// a first column of 16 MiB or more, so its packet has the largest length.
func (a *answer) row(head []byte, n int, caps uint32) verdict {
	switch {
	case head[0] == markERR:
		return answerEnds
	case head[0] != markEOF || n == maxPayload:
		return answerGoesOn
	case caps&capDeprecateEOF == 0 && n != 5:
		return answerUnclear
	}
	return a.end(endStatus(head, n, caps))
}

// end takes the status at the end of one result.
func (a *answer) end(status uint16, ok bool) verdict {
	if !ok {
		return answerUnclear
	}
	a.status = status
	if status&statusMoreResults != 0 {
		a.stage = stageFirst
		return answerGoesOn
	}
	return answerEnds
}

// prepared reads COM_STMT_PREPARE's OK: 00, statement u32, columns u16,
// parameters u16, 00, warnings u16, and with optional metadata a flag.
func (a *answer) prepared(head []byte, caps uint32) verdict {
	if head[0] != markOK || len(head) < 12 {
		return answerUnclear
	}
	var extra uint32 // an EOF packet behind each list
	if caps&capDeprecateEOF == 0 {
		extra = 1
	}
	a.left = 0
	for _, at := range [...]int{5, 7} {
		if n := uint32(binary.LittleEndian.Uint16(head[at:])); n > 0 {
			a.left += n + extra
		}
	}
	if caps&capOptionalMeta != 0 && len(head) > 12 && head[12] == 0 {
		a.left = 0
	}
	if a.left == 0 {
		return answerEnds
	}
	a.stage = stagePrepared
	return answerGoesOn
}

// endStatus reads the status of the packet that ends a result: an OK packet
// under the mark of EOF, or an old EOF packet.
func endStatus(head []byte, n int, caps uint32) (uint16, bool) {
	if caps&capDeprecateEOF != 0 && n >= 7 {
		return okStatus(head)
	}
	return eofStatus(head)
}

// okStatus reads OK: mark, affected rows lenenc, last id lenenc, status u16.
func okStatus(head []byte) (uint16, bool) {
	c := cursor{rest: head}
	c.u8()
	c.lenenc()
	c.lenenc()
	s := c.u16()
	return s, !c.bad
}

// eofStatus reads EOF: fe, warnings u16, status u16.
func eofStatus(head []byte) (uint16, bool) {
	if len(head) < 5 {
		return 0, false
	}
	return binary.LittleEndian.Uint16(head[3:]), true
}
