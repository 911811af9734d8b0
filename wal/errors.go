package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrFailed is wrapped by every error after a write or sync failed. What
	// was appended since the last successful Sync is in doubt; only a new Open
	// can tell.
	ErrFailed = errors.New("log has failed; the process must restart to find out what is durable")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("log is closed")
	// ErrNoSpace is wrapped by an error of Sync when there was no room for the
	// next segment. Nothing was written and nothing is lost: the records wait
	// in memory and Sync may be called again.
	ErrNoSpace = errors.New("no space left for the next log segment")
	// ErrBacklog is returned by Append when too many bytes wait for Sync.
	ErrBacklog = errors.New("too many bytes wait to be synced")
	// ErrNotFound is returned by Read for an index that the log does not hold.
	ErrNotFound = errors.New("entry not in log")
	// ErrTrimmed is returned for an index below what TrimBelow has given up.
	ErrTrimmed = errors.New("entry is trimmed")
	// ErrInvalid is wrapped by errors about records and options that break a limit.
	ErrInvalid = errors.New("invalid argument")
	// ErrInUse is wrapped by the error of Open when another process has the log.
	ErrInUse = errors.New("log is in use by another process")
	// ErrNoLog is returned by ReadIdentity when there is no log.
	ErrNoLog = errors.New("no log in directory")
)

// CorruptError says that bytes of the log are not what was written.
type CorruptError struct {
	File   string // path of the segment
	Offset int64  // bytes from the start of the file
	Cause  string // what is wrong there
	Hint   string // what to do next; may be empty
	Err    error  // the error of the device, if that was the cause
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("log segment %s is damaged at offset %d: %s", e.File, e.Offset, e.Cause)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += " (hint: " + e.Hint + ")"
	}
	return s
}

// Unwrap returns the error of the device, if any.
func (e *CorruptError) Unwrap() error { return e.Err }
