// Package binlog frames events of MySQL's binary log, both ways: it reads the
// header of an event, the few events that mark where a transaction begins and
// ends, and it builds the artificial events that a source sends or that stand
// at the start of a binlog file.
//
// It is not a decoder of rows or statements. The bytes of a transaction pass
// through unchanged, together with the CRC32 that the server wrote.
//
// Invariants: a decoder never panics on any bytes, never allocates by a size
// that it read, and the slices that it returns alias its input. Every event
// that a builder appends ends with a correct CRC32.
//
// Layouts follow the MySQL source (libs/mysql/binlog/event) and the manual page
// "Event Structures".
package binlog

import "errors"

// ErrMalformed is wrapped by every error about bytes that are not the event
// that they claim to be.
var ErrMalformed = errors.New("malformed binlog event")
