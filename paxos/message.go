package paxos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// MessageKind tells what a message asks or answers.
type MessageKind uint8

// The kinds of messages. Canvass and its answer change nobody's state: they ask
// whether a Prepare would be granted, so that a node that nobody would follow
// does not raise ballots.
const (
	MsgCanvass  MessageKind = 1 // would you promise Ballot?
	MsgOpinion  MessageKind = 2 // answer to Canvass; Reject says no
	MsgPrepare  MessageKind = 3 // phase 1a: promise Ballot, for all instances from First
	MsgPromise  MessageKind = 4 // phase 1b: Entries accepted from First on; Reject says no
	MsgAccept   MessageKind = 5 // phase 2a: Entries, contiguous from First; also heartbeat and notice of Chosen
	MsgAccepted MessageKind = 6 // phase 2b: everything through Through is durable here under Ballot
	MsgHandover MessageKind = 7 // the leader of Ballot renounces it, and every lower one of its own, in favour of To
	MsgLearn    MessageKind = 8 // Entries are chosen, contiguous from First; needs no ballot. None: what was asked for is trimmed, First is the oldest kept
	MsgAsk      MessageKind = 9 // asks any member for a MsgLearn from First on
	// MsgRenew and its answer renew the lease and say nothing of the log, so
	// that they may overtake the entries that a busy connection carries.
	MsgRenew   MessageKind = 10 // the leader of Ballot is there; Sent is its clock
	MsgRenewed MessageKind = 11 // a lease of length Lease is granted to Ballot; Sent is echoed
	// MsgReadIndex and its answer let any member read its own state; see ReadIndex.
	MsgReadIndex MessageKind = 12 // asks the leader what is chosen; Sent is the asker's token
	MsgReadAt    MessageKind = 13 // everything answered to anybody before the question is within Chosen; Sent is echoed
)

// saysLease reports whether messages of this kind may carry the length of a lease, in
// the place of the consent that they do not have.
func (k MessageKind) saysLease() bool {
	return k == MsgAccept || k == MsgAccepted || k == MsgRenew || k == MsgRenewed
}

var messageNames = [...]string{"", "canvass", "opinion", "prepare", "promise", "accept", "accepted", "handover", "learn", "ask", "renew", "renewed", "readindex", "readat"}

func (k MessageKind) String() string {
	if int(k) < len(messageNames) && k > 0 {
		return messageNames[k]
	}
	return fmt.Sprintf("message(%d)", uint8(k))
}

// Reject is the reason of a refusal; zero means consent.
type Reject uint8

// The reasons of a refusal.
const (
	RejectNone   Reject = 0
	RejectLease  Reject = 1 // another member's lease runs, or this node has just started
	RejectBallot Reject = 2 // a higher ballot is promised: see Promised
	RejectBehind Reject = 3 // the candidate lacks chosen instances: see Chosen
	RejectGap    Reject = 4 // entries before First are missing: see Received
	RejectBlank  Reject = 5 // the sender knows no membership and may vote on the first instance only
)

var rejectNames = [...]string{"none", "lease", "ballot", "behind", "gap", "blank"}

func (r Reject) String() string {
	if int(r) < len(rejectNames) {
		return rejectNames[r]
	}
	return fmt.Sprintf("reject(%d)", uint8(r))
}

// Message is what members say to each other. Which fields count depends on Kind.
// A receiver may keep Entries; a sender never changes them after sending.
type Message struct {
	Kind     MessageKind
	Reject   Reject
	Able     bool // Accepted, Opinion: the sender could lead (its application is healthy)
	From, To NodeID
	Ballot   Ballot   // the ballot spoken about
	Promised Ballot   // refusals: what the sender promised
	Consent  Ballot   // Canvass, Prepare: the renounced ballot whose lease does not count, from MsgHandover
	First    Instance // Prepare, Promise, Learn, Ask: start of the range; Accept: instance of Entries[0], or next to send; Accepted: what the leader would send next
	Through  Instance // Accepted: contiguously durable under Ballot
	Received Instance // Accepted: contiguously received under Ballot, not necessarily durable
	Chosen   Instance // everything through Chosen is chosen, as far as the sender knows
	Sent     Time     // Accept: the leader's clock when sent; Accepted: that value echoed; ReadIndex, ReadAt: a token
	// Lease is in Accepted and Renewed the length of the lease that the sender grants,
	// by its own clock and from when it received what it answers; in Accept and Renew it
	// is not zero to say that the sender counts by that. Zero comes from a release that
	// grants, or counts by, the Config.Lease that all members of its cluster share.
	Lease   time.Duration
	Entries []Entry
}

// Wire layout of a message; all integers are little-endian.
//
//	 0  kind u8 | reject u8 | flags u8 (bit 0 able, bit 1 lease) | version u8
//	 4  number of entries u32
//	 8  from u64 | to u64
//	24  ballot (round u64, node u64) | promised | consent; with flag bit 1, in kinds that
//	    have no consent (accept, accepted, renew, renewed): 56 lease i64, nanoseconds | 0 u64
//	72  first u64 | through u64 | received u64 | chosen u64 | sent u64
//	112 entries: instance u64, ballot round u64, ballot node u64, kind u8, 3 zero bytes, length u32, data
const (
	messageHeader = 112
	entryHeader   = 32

	// The flags of a message.
	flagAble  = 1
	flagLease = 2

	// WireVersion is the version of the message layout.
	WireVersion = 1

	// MaxEntryData is the largest data of one entry. The application splits
	// what is larger.
	MaxEntryData = 64 << 20
	// MaxMessageEntries is the largest number of entries in one message.
	MaxMessageEntries = 1 << 20
)

// ErrMalformed is wrapped by every error about bytes that are not a message,
// membership or record.
var ErrMalformed = errors.New("malformed")

// ErrUnknownKind is wrapped, beside ErrMalformed, by the error about a message of a kind
// that this version does not know: a newer one sent it. The receiver drops it and
// goes on.
var ErrUnknownKind = errors.New("unknown kind of message")

// EncodedSize returns the length of the encoded message in bytes.
func (m *Message) EncodedSize() int {
	n := messageHeader
	for i := range m.Entries {
		n += entryHeader + len(m.Entries[i].Data)
	}
	return n
}

// AppendTo appends the encoded message to b.
func (m *Message) AppendTo(b []byte) []byte {
	b = m.appendHead(b)
	for i := range m.Entries {
		b = appendEntry(b, &m.Entries[i])
	}
	return b
}

// Pieces returns slices that together are b and the encoded message behind it. The
// data of the entries are not copied, so that a large message takes no memory.
func (m *Message) Pieces(b []byte) [][]byte {
	all := make([]byte, 0, len(b)+messageHeader+entryHeader*len(m.Entries))
	all = m.appendHead(append(all, b...))
	pieces := make([][]byte, 0, 1+2*len(m.Entries))
	from := 0
	for i := range m.Entries {
		all = AppendEntryHeader(all, &m.Entries[i])
		pieces = append(pieces, all[from:], m.Entries[i].Data)
		from = len(all)
	}
	return append(pieces, all[from:])
}

func (m *Message) appendHead(b []byte) []byte {
	le := binary.LittleEndian
	var flags byte
	if m.Able {
		flags |= flagAble
	}
	consent := m.Consent
	if m.Lease > 0 && m.Kind.saysLease() {
		flags |= flagLease
		consent = Ballot{Round: uint64(m.Lease)}
	}
	b = append(b, byte(m.Kind), byte(m.Reject), flags, WireVersion)
	b = le.AppendUint32(b, uint32(len(m.Entries)))
	b = le.AppendUint64(b, uint64(m.From))
	b = le.AppendUint64(b, uint64(m.To))
	for _, x := range [...]Ballot{m.Ballot, m.Promised, consent} {
		b = le.AppendUint64(b, x.Round)
		b = le.AppendUint64(b, uint64(x.Node))
	}
	for _, x := range [...]Instance{m.First, m.Through, m.Received, m.Chosen} {
		b = le.AppendUint64(b, uint64(x))
	}
	return le.AppendUint64(b, uint64(m.Sent))
}

func appendEntry(b []byte, e *Entry) []byte {
	return append(AppendEntryHeader(b, e), e.Data...)
}

// AppendEntryHeader appends an entry as AppendEntry does, but for the data that
// must follow: it spares copying large data.
func AppendEntryHeader(b []byte, e *Entry) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(e.Instance))
	b = le.AppendUint64(b, e.Ballot.Round)
	b = le.AppendUint64(b, uint64(e.Ballot.Node))
	b = append(b, byte(e.Kind), 0, 0, 0)
	return le.AppendUint32(b, uint32(len(e.Data)))
}

// DecodeMessage reads one message that fills b exactly. The entries' data point
// into b, which must not be changed afterwards.
func DecodeMessage(b []byte) (Message, error) {
	le := binary.LittleEndian
	if len(b) < messageHeader {
		return Message{}, fmt.Errorf("decode message: %d bytes are less than a header: %w", len(b), ErrMalformed)
	}
	if b[3] != WireVersion {
		return Message{}, fmt.Errorf("decode message: version %d, want %d: %w", b[3], WireVersion, ErrMalformed)
	}
	u := func(at int) uint64 { return le.Uint64(b[at:]) }
	bal := func(at int) Ballot { return Ballot{Round: u(at), Node: NodeID(u(at + 8))} }
	m := Message{
		Kind: MessageKind(b[0]), Reject: Reject(b[1]), Able: b[2]&flagAble != 0,
		From: NodeID(u(8)), To: NodeID(u(16)),
		Ballot: bal(24), Promised: bal(40), Consent: bal(56),
		First: Instance(u(72)), Through: Instance(u(80)), Received: Instance(u(88)), Chosen: Instance(u(96)),
		Sent: Time(u(104)),
	}
	if b[2]&flagLease != 0 && m.Kind.saysLease() {
		m.Lease, m.Consent = time.Duration(m.Consent.Round), Ballot{}
		if m.Lease <= 0 || m.Lease > MaxLease {
			return Message{}, fmt.Errorf("decode message: lease of %v: %w", m.Lease, ErrMalformed)
		}
	}
	n := le.Uint32(b[4:])
	rest := b[messageHeader:]
	if n > MaxMessageEntries || int(n) > len(rest)/entryHeader {
		return Message{}, fmt.Errorf("decode message: %d entries in %d bytes: %w", n, len(rest), ErrMalformed)
	}
	if m.Kind > MsgReadAt {
		return Message{}, fmt.Errorf("decode message: %w %d: %w", ErrUnknownKind, b[0], ErrMalformed)
	}
	if m.Kind < MsgCanvass {
		return Message{}, fmt.Errorf("decode message: kind %d: %w", b[0], ErrMalformed)
	}
	if n > 0 {
		m.Entries = make([]Entry, 0, n)
	}
	for range n {
		e, r, err := cutEntry(rest)
		if err != nil {
			return Message{}, err
		}
		m.Entries = append(m.Entries, e)
		rest = r
	}
	if len(rest) != 0 {
		return Message{}, fmt.Errorf("decode message: %d bytes left over: %w", len(rest), ErrMalformed)
	}
	return m, nil
}

func cutEntry(b []byte) (Entry, []byte, error) {
	le := binary.LittleEndian
	if len(b) < entryHeader {
		return Entry{}, nil, fmt.Errorf("decode entry: cut short: %w", ErrMalformed)
	}
	n := le.Uint32(b[28:])
	if n > MaxEntryData || int(n) > len(b)-entryHeader {
		return Entry{}, nil, fmt.Errorf("decode entry: %d bytes of data: %w", n, ErrMalformed)
	}
	e := Entry{
		Instance: Instance(le.Uint64(b)),
		Ballot:   Ballot{Round: le.Uint64(b[8:]), Node: NodeID(le.Uint64(b[16:]))},
		Kind:     EntryKind(b[24]),
	}
	if e.Kind < Noop || e.Kind > Membership {
		return Entry{}, nil, fmt.Errorf("decode entry: kind %d: %w", b[24], ErrMalformed)
	}
	if n > 0 {
		e.Data = b[entryHeader : entryHeader+n : entryHeader+n]
	}
	return e, b[entryHeader+n:], nil
}

// AppendEntry appends the encoded entry to b, in the layout used on the wire and
// in the log.
func AppendEntry(b []byte, e Entry) []byte { return appendEntry(b, &e) }

// DecodeEntry reads one entry that fills b exactly. Its data points into b.
func DecodeEntry(b []byte) (Entry, error) {
	e, rest, err := cutEntry(b)
	if err == nil && len(rest) != 0 {
		err = fmt.Errorf("decode entry: %d bytes left over: %w", len(rest), ErrMalformed)
	}
	return e, err
}
