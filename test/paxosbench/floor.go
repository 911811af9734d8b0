package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const floorFile = 32 << 20

// floor writes and syncs values of a size in one thread: behind the end of a
// file, or over a file that was written before.
func floor(dir string, size int, limit time.Duration, overwrite bool) (result, error) {
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		return result{}, fmt.Errorf("create floor file: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if overwrite {
		if _, err := f.Write(make([]byte, floorFile)); err != nil {
			return result{}, fmt.Errorf("fill floor file: %w", err)
		}
		if err := f.Sync(); err != nil {
			return result{}, fmt.Errorf("sync floor file: %w", err)
		}
	}
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(i * 31)
	}
	var h histogram
	at, start := int64(0), time.Now()
	for time.Since(start) < limit {
		if overwrite && at+int64(size) > floorFile {
			at = 0
		}
		began := time.Now()
		if _, err := f.WriteAt(value, at); err != nil {
			return result{}, fmt.Errorf("write floor file: %w", err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return result{}, fmt.Errorf("sync floor file: %w", err)
		}
		h.add(time.Since(began))
		at += int64(size)
	}
	return result{Commits: h.count, Time: time.Since(start), P50: h.quantile(0.5), P99: h.quantile(0.99), Max: h.max}, nil
}
