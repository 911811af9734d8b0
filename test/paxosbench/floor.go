package main

import (
	"errors"
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
	f, err := newFloorWriter(filepath.Join(dir, "floor"), size, overwrite)
	if err != nil {
		return result{}, err
	}
	defer f.end()
	var h histogram
	start := time.Now()
	for time.Since(start) < limit {
		began := time.Now()
		if err := f.write(); err != nil {
			return result{}, err
		}
		h.add(time.Since(began))
	}
	return h.result(time.Since(start)), nil
}

// sharedFloor is what one disk makes of a commit of a cluster whose nodes share it: as
// many threads as there are nodes overwrite and sync at the same time, each a file of its
// own. A round counts when a majority is done, and the next begins when all are.
func sharedFloor(dir string, size int, limit time.Duration) (result, error) {
	var writers []*floorWriter
	for i := range nodes {
		f, err := newFloorWriter(filepath.Join(dir, fmt.Sprintf("floor%d", i)), size, true)
		if err != nil {
			return result{}, err
		}
		defer f.end()
		writers = append(writers, f)
	}
	var h histogram
	done := make(chan error, nodes)
	start := time.Now()
	for time.Since(start) < limit {
		began := time.Now()
		for _, f := range writers {
			go func() { done <- f.write() }()
		}
		var errs []error
		for i := range nodes {
			errs = append(errs, <-done)
			if i == nodes/2 {
				h.add(time.Since(began))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return result{}, err
		}
	}
	return h.result(time.Since(start)), nil
}

func (h *histogram) result(took time.Duration) result {
	return result{Commits: h.count, Time: took, P50: h.quantile(0.5), P99: h.quantile(0.99), Max: h.max}
}

// floorWriter writes and syncs values of one size to a file.
type floorWriter struct {
	f         *os.File
	value     []byte
	at        int64
	overwrite bool // what was written before, again and again
}

func newFloorWriter(name string, size int, overwrite bool) (*floorWriter, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create floor file: %w", err)
	}
	w := &floorWriter{f: f, value: make([]byte, size), overwrite: overwrite}
	for i := range w.value {
		w.value[i] = byte(i * 31)
	}
	if !overwrite {
		return w, nil
	}
	if _, err = f.Write(make([]byte, floorFile)); err == nil {
		err = f.Sync()
	}
	if err != nil {
		w.end()
		return nil, fmt.Errorf("fill floor file: %w", err)
	}
	return w, nil
}

func (w *floorWriter) write() error {
	if w.overwrite && w.at+int64(len(w.value)) > floorFile {
		w.at = 0
	}
	if _, err := w.f.WriteAt(w.value, w.at); err != nil {
		return fmt.Errorf("write floor file: %w", err)
	}
	if err := syscall.Fdatasync(int(w.f.Fd())); err != nil {
		return fmt.Errorf("sync floor file: %w", err)
	}
	w.at += int64(len(w.value))
	return nil
}

func (w *floorWriter) end() {
	w.f.Close()
	os.Remove(w.f.Name())
}
