package vfs

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Sync implements File with fdatasync: times of change are not worth a journal
// commit.
func (f *osFile) Sync() error {
	fd := int(f.f.Fd())
	for {
		err := unix.Fdatasync(fd)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("fdatasync %s: %w", f.f.Name(), err)
		}
	}
}

// maxPieces is IOV_MAX, the most pieces that one system call takes.
const maxPieces = 1024

// WritePiecesAt implements File with pwritev(2).
func (f *osFile) WritePiecesAt(pieces [][]byte, off int64) (int, error) {
	fd := int(f.f.Fd())
	written := 0
	for rest := after(pieces, 0); len(rest) > 0; {
		n, err := unix.Pwritev(fd, rest[:min(len(rest), maxPieces)], off+int64(written))
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n == 0:
			err = io.ErrShortWrite
		}
		if err != nil {
			return written, fmt.Errorf("pwritev %s: %w", f.f.Name(), err)
		}
		written += n
		rest = after(rest, n)
	}
	return written, nil
}

// after returns what is left of pieces behind their first n bytes, without empty
// ones at its head. The caller's slice stays as it is.
func after(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 { // a short write
		pieces = append([][]byte{pieces[0][n:]}, pieces[1:]...)
	}
	return pieces
}

// DropCache implements File with posix_fadvise(2).
func (f *osFile) DropCache() {
	_ = unix.Fadvise(int(f.f.Fd()), 0, 0, unix.FADV_DONTNEED) // advice that was not taken costs memory only
}

// Preallocate implements File with fallocate, or by setting the size where the
// file system cannot do that.
func (f *osFile) Preallocate(size int64) error {
	old, err := f.Size()
	if err != nil || old >= size {
		return err
	}
	err = retryEINTR(func() error { return unix.Fallocate(int(f.f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.f.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("fallocate %d bytes for %s: %w", size, f.f.Name(), err)
	}
	return nil
}
