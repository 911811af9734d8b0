//go:build unix && !linux

package vfs

// Sync implements File.
func (f *osFile) Sync() error { return f.f.Sync() }

// DropCache does nothing here.
func (f *osFile) DropCache() {}

// WritePiecesAt implements File with one write for each piece.
func (f *osFile) WritePiecesAt(pieces [][]byte, off int64) (int, error) {
	written := 0
	for _, p := range pieces {
		n, err := f.f.WriteAt(p, off+int64(written))
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Preallocate implements File by setting the size: space is not reserved.
func (f *osFile) Preallocate(size int64) error {
	old, err := f.Size()
	if err != nil || old >= size {
		return err
	}
	return f.f.Truncate(size)
}
