// Package wal is one append-only, segmented, checksummed log that many groups
// share, so that one fdatasync makes the records of all of them durable.
//
// It keeps two things: entries, which have an index in their group and of which
// the latest record of an index counts, and states, small values by group and key
// of which the latest counts. It knows nothing about what they mean. It is not a
// database: what is in memory is the place of each entry (12 bytes) and the
// states themselves.
//
// Append encodes into memory, Sync writes all that was appended with one write
// and one fdatasync (one of each per segment when a batch reaches into another
// segment). Append, Read and one Sync may run at the same time.
//
// A log that writes much does not fill the machine's memory: the system is told to forget
// older segments, unless somebody reads there.
//
// Invariants:
//
//   - After a Sync succeeded, all that was appended before it is there after any
//     crash; nothing else was invented, and what was not synced is there as a
//     prefix of whole batches or not at all.
//   - An error of a write or sync is final. Sync is never tried again, because a
//     second fsync after a failed one succeeds without having written anything.
//   - Every byte read is checked: a record that does not match its checksum is a
//     CorruptError with file and offset, never data.
//   - A torn tail, which is what an unfinished write leaves, is cut at Open. Damage
//     anywhere else is reported. docs/format/wal.md has the rules.
//   - Segments are removed from the oldest on, and only when nothing in them is
//     needed. States are written again at the head of each segment.
package wal
