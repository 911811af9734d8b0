package binlog

import (
	"encoding/binary"
	"hash/crc32"
	"time"
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

func unix(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(t.Unix())
}
