package binlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
)

// magic stands at the start of every binlog file.
const magic = "\xfebin"

// MagicSize is where the first event of a file stands.
const MagicSize = len(magic)

// postHeaderLengths are the fixed part's lengths of event types 1 to 42, as
// MySQL 8.4 and 9.x write them. Types 41 and 42 (heartbeat v2, tagged GTID) have
// no fixed part.
var postHeaderLengths = [42]byte{
	0, 13, 0, 8, 0, 0, 0, 0, // 1-8
	4, 0, 4, 0, 0, 0, 99, 0, // 9-16
	4, 26, 8, 0, 0, 0, 0, 0, // 17-24
	0, 2, 0, 0, 0, 10, 10, 10, // 25-32
	42, 42, 0, 18, 52, 0, 10, 40, // 33-40
	0, 0, // 41-42
}

const (
	serverVersionSize = 50
	checksumCRC32     = 1 // the id of the only checksum algorithm
)

// open appends a header whose size is not known yet and returns where the event
// starts. seal completes it.
func open(b []byte, h Header) ([]byte, int) {
	return h.appendTo(b), len(b)
}

// seal fills in the size of the event that starts at start and appends its
// CRC32. A position of 0 says that the event stands in no file.
func seal(b []byte, start int, pos uint32) []byte {
	le := binary.LittleEndian
	size := uint32(len(b) - start + ChecksumSize)
	le.PutUint32(b[start+9:], size)
	if pos != 0 {
		le.PutUint32(b[start+13:], pos+size)
	}
	event := b[start:]
	sum := crc32.ChecksumIEEE(event)
	if Type(event[4]) == FormatDescription && event[17]&byte(FlagInUse) != 0 {
		sum = inUseChecksum(event)
	}
	return le.AppendUint32(b, sum)
}

// AppendFormatDescription appends the event that tells how all later ones are
// encoded. Position is where the event stands in its file, 0 when it is made
// for a connection; created is the file's time of creation, zero when
// the reader must not take the event for the start of a server.
//
//	+---------+----------------+---------+-------------+---------------------+----------+-------+
//	| version | server version | created | header size | post-header lengths | checksum | CRC32 |
//	| u16 = 4 | 50 bytes, 0-   | u32     | u8 = 19     | u8 for each type    | u8 = 1   | u32   |
//	|         | padded         |         |             | from 1 to 42        | (CRC32)  |       |
//	+---------+----------------+---------+-------------+---------------------+----------+-------+
func AppendFormatDescription(b []byte, serverVersion string, serverID uint32, now, created time.Time, position uint32, flags uint16) []byte {
	h := Header{Timestamp: unix(now), Type: FormatDescription, ServerID: serverID, Flags: flags}
	b, start := open(b, h)
	b = binary.LittleEndian.AppendUint16(b, 4)
	var version [serverVersionSize]byte
	copy(version[:serverVersionSize-1], serverVersion)
	b = append(b, version[:]...)
	b = binary.LittleEndian.AppendUint32(b, unix(created))
	b = append(b, HeaderSize)
	b = append(b, postHeaderLengths[:]...)
	b = append(b, checksumCRC32)
	return seal(b, start, position)
}

// AppendPreviousGTIDs appends the event that names all GTIDs of earlier files,
// in the encoding of a GTID set (8 zero bytes for the empty one).
func AppendPreviousGTIDs(b []byte, set []byte, serverID uint32, now time.Time, position uint32) []byte {
	h := Header{Timestamp: unix(now), Type: PreviousGTIDs, ServerID: serverID, Flags: FlagIgnorable}
	b, start := open(b, h)
	b = append(b, set...)
	return seal(b, start, position)
}

// RestartFile returns the whole content of a binlog file that makes a server
// roll back every prepared transaction when it starts: the file claims to have
// been in use when the server stopped, so recovery reads it, and it holds no
// transaction.
//
//	magic | format description, in use | previous GTIDs, empty     (158 bytes)
//
// The server takes its GTID set from the storage engine alone then. ServerVersion
// is what the server says of itself (@@version), cut at 49 bytes.
func RestartFile(serverVersion string, serverID uint32, now time.Time) []byte {
	b := make([]byte, 0, 160)
	b = append(b, magic...)
	b = AppendFormatDescription(b, serverVersion, serverID, now, now, uint32(len(b)), FlagInUse)
	return AppendPreviousGTIDs(b, make([]byte, 8), serverID, now, uint32(len(b)))
}

// XAID names an XA transaction.
type XAID struct {
	Format int32
	Global string // at most 64 bytes
	Branch string // the same
}

// String is the form in which the server writes it: X'61',X”,1.
func (x XAID) String() string {
	return fmt.Sprintf("X'%x',X'%x',%d", x.Global, x.Branch, uint32(x.Format))
}

// PreparedFile returns the whole content of a binlog file that makes a server keep
// the given XA transactions, which are prepared in its engine, when it starts, and
// roll back every other one. It takes them for its own from then on: it writes the
// decisions about them to its binlog. Executed are the GTIDs that it has then.
//
//	magic | format description, in use | previous GTIDs: executed
//	for each: GTID | XA START | XA END | XA_PREPARE
//
// The groups show the server that it has prepared them. They have no rows, and
// GTIDs that are executed, so that nobody is ever sent them. ErrXAOrder: the server
// would lose some of them. The body of an XA_PREPARE event:
//
//	+-----------+--------+-------------+-------------+--------+--------+
//	| one phase | format | global size | branch size | global | branch |
//	| u8 = 0    | i32    | u32         | u32         |        |        |
//	+-----------+--------+-------------+-------------+--------+--------+
func PreparedFile(serverVersion string, serverID uint32, now time.Time, executed *gtid.Set, prepared []XAID) ([]byte, error) {
	prepared, err := inServerOrder(prepared)
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), magic...)
	b = AppendFormatDescription(b, serverVersion, serverID, now, now, uint32(len(b)), FlagInUse)
	b = AppendPreviousGTIDs(b, executed.AppendBinary(nil), serverID, now, uint32(len(b)))
	next, stop := iter.Pull(executed.All())
	defer stop()
	for n, x := range prepared {
		t := Transaction{LastCommitted: int64(n), SequenceNumber: int64(n + 1)}
		for {
			g, ok := next()
			if !ok {
				return nil, errors.New("build binlog of prepared transactions: too few GTIDs without a tag are executed")
			}
			if g.Tag == "" {
				t.GTID = g
				break
			}
		}
		group := func(b []byte, at uint32) []byte {
			b = AppendGTID(b, t, serverID, now, at)
			b = appendQuery(b, "XA START "+x.String(), serverID, now, at+uint32(len(b)))
			b = appendQuery(b, "XA END "+x.String(), serverID, now, at+uint32(len(b)))
			le := binary.LittleEndian
			body := le.AppendUint32([]byte{0}, uint32(x.Format))
			body = le.AppendUint32(body, uint32(len(x.Global)))
			body = le.AppendUint32(body, uint32(len(x.Branch)))
			body = append(append(body, x.Global...), x.Branch...)
			return AppendEvent(b, Header{Timestamp: unix(now), Type: XAPrepare, ServerID: serverID}, body, at+uint32(len(b)))
		}
		for size := uint64(1); size != t.Length; { // the length of the length counts
			t.Length = size
			size = uint64(len(group(nil, 0)))
		}
		b = append(b, group(nil, uint32(len(b)))...)
	}
	return b, nil
}

// ErrXAOrder says that a server cannot keep a set of XA transactions: see
// inServerOrder.
var ErrXAOrder = errors.New("identifiers of prepared transactions that the server confuses")

// inServerOrder sorts identifiers as the server does when it starts. Its comparison
// (seen in 8.0.29 to 9.7) is no order where formats differ: one identifier is before
// the other if its format is lower, or else if its sizes and bytes are, whatever the
// format. Where the two disagree it does not find some of them again, and rolls them
// back. Nor does it find a format that is negative in 32 bits.
func inServerOrder(list []XAID) ([]XAID, error) {
	text := func(x, y XAID) int {
		return cmp.Or(cmp.Compare(len(x.Global), len(y.Global)), cmp.Compare(len(x.Branch), len(y.Branch)),
			strings.Compare(x.Global+x.Branch, y.Global+y.Branch))
	}
	list = slices.SortedFunc(slices.Values(list), func(x, y XAID) int {
		return cmp.Or(cmp.Compare(x.Format, y.Format), text(x, y))
	})
	if len(list) > 0 && list[0].Format < 0 {
		return nil, fmt.Errorf("%v: a format above 2147483647: %w", list[0], ErrXAOrder)
	}
	for k := 1; k < len(list); k++ {
		if text(list[k-1], list[k]) > 0 {
			return nil, fmt.Errorf("%v and %v: %w", list[k-1], list[k], ErrXAOrder)
		}
	}
	return list, nil
}

func appendQuery(b []byte, sql string, serverID uint32, now time.Time, position uint32) []byte {
	const fixed = 13 // and a name of no database, which ends with 0
	return AppendEvent(b, Header{Timestamp: unix(now), Type: Query, ServerID: serverID}, append(make([]byte, fixed+1), sql...), position)
}

func unix(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(t.Unix())
}
