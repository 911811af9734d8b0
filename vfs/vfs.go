// Package vfs is the seam between the log and the file system. It has as many
// methods as package wal needs and no more.
//
// Three implementations exist. OS is the real one. Mem lives in memory, is
// deterministic, and can crash: after a crash only what was synced is certain
// to be there. Faulty wraps another FS and injects the errors that a callback
// chooses.
//
// What a user of this package may rely on after a power cut, and Mem holds it to:
//
//   - Bytes written before a successful File.Sync are there.
//   - Bytes written after it are there, not there, or partly there. The unit is a
//     sector of 512 bytes: each sector of a write is there or is not, in any order.
//     Bytes of a sector that the write did not cover keep their value.
//   - A file created, renamed or removed is surely so only after SyncDir of its
//     directory. Before that, each such change is there or not, in any order.
package vfs

import (
	"errors"
	"io"
)

// SectorSize is the unit, in bytes, in which a write survives a power cut or does
// not.
const SectorSize = 512

// ErrLocked is returned by FS.Lock when somebody else holds the lock.
var ErrLocked = errors.New("lock is held by another process")

// FS is a file system. Names are slash-separated paths as package path/filepath
// makes them. Errors wrap those of package io/fs (fs.ErrNotExist, fs.ErrExist).
// All methods may be called at the same time.
type FS interface {
	// Create makes a new file for reading and writing; it is an error if the
	// name exists.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(name string) (File, error)
	// Remove removes a file. Files that are open stay readable.
	Remove(name string) error
	// Rename gives a file another name in the same directory and replaces what
	// had that name.
	Rename(from, to string) error
	// MkdirAll makes a directory and those above it. It does not sync them.
	MkdirAll(dir string) error
	// List returns the names (without directory) in dir, ascending.
	List(dir string) ([]string, error)
	// Stat returns what is known about a name.
	Stat(name string) (Info, error)
	// Lock takes an exclusive lock, which ends with the process at the latest.
	// It creates the file when needed and returns ErrLocked (wrapped) without
	// waiting when the lock is taken. Closing the result unlocks.
	Lock(name string) (io.Closer, error)
	// SyncDir makes the entries of dir durable.
	SyncDir(dir string) error
	// FreeSpace returns the bytes that may still be written below dir.
	FreeSpace(dir string) (int64, error)
}

// File is an open file. ReadAt and the writes may be called at the same time.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WritePiecesAt is one WriteAt of all the pieces, one behind the other, without
	// their being copied together.
	WritePiecesAt(pieces [][]byte, off int64) (int, error)
	// Sync makes the content durable, and the size as far as it is needed to
	// read the content (fdatasync). After an error nothing is known about any
	// write since the last success; trying again does not repair it.
	Sync() error
	// Preallocate reserves space so that the file has at least size bytes;
	// new bytes read as zero. Running out of space shows here and not later.
	Preallocate(size int64) error
	// Truncate sets the size; new bytes read as zero.
	Truncate(size int64) error
	// DropCache says that what is durable of the file will hardly be read soon, so the
	// system need not keep it in memory. It is advice: nothing that can be read changes,
	// and it cannot fail.
	DropCache()
	// Size returns the size in bytes.
	Size() (int64, error)
}

// Info is what Stat tells.
type Info struct {
	Size int64 // bytes; of no meaning for a directory
	Dir  bool
}
