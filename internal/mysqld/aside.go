package mysqld

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Data that a server cannot run on are set aside: new, empty ones take their place,
// for the log or another server's copy to fill. Whether the data are at fault, and not
// the machine, is tried first: a server must run on the new ones.
//
// Data that have taken the place of others are unproved until Prove. What they have
// replaced is never given up for them: should they have to go in turn, they go, and the
// older ones stay aside. New data that are worth a look, because they were found to be
// wrong, go to a place of their own, which holds the last ones only.

// freshSize is what new data and a server that tries them take on the disk.
const freshSize = 256 << 20

// keepName is a file in data that were set aside and are worth a look: they stay until
// a person removes them, or until others are set aside.
const keepName = "phxsql-keep"

// Damaged returns why the data directory, which was one of ours, is none any more; nil
// for a sound or missing one.
func (s *Server) Damaged() error {
	err := s.cfg.checkData()
	if errors.Is(err, ErrNotInitialized) {
		return nil
	}
	return err
}

// SetAside puts new, empty data in the place of those that the server cannot run on.
// The server must not run. When even new data do not make it run it changes nothing.
func (s *Server) SetAside(ctx context.Context) error {
	s.work.Lock()
	defer s.work.Unlock()
	if s.PID() != 0 {
		return fmt.Errorf("set data aside: %w", ErrRunning)
	}
	if err := s.cfg.killOrphans(ctx); err != nil {
		return fmt.Errorf("set data aside: %w", err)
	}
	if err := s.checkRoom(freshSize); err != nil {
		return fmt.Errorf("set data aside: %w", err)
	}
	if err := s.tryFresh(ctx); err != nil {
		_ = os.RemoveAll(s.cfg.path(dataNewName)) // the next try begins with that, too
		return fmt.Errorf("set data aside: a server with new data does not run either: %w (hint: the data stay; see %s)", err, s.ErrorLog())
	}
	if err := s.cfg.exchange(dataNewName, false); err != nil {
		return fmt.Errorf("set data aside: %w", err)
	}
	s.forgetCrashes()
	return nil
}

// tryFresh makes new data and has a server run on them for a moment; work is held.
func (s *Server) tryFresh(ctx context.Context) error {
	if err := s.cfg.makeFresh(ctx, s.runInit, true); err != nil {
		return err
	}
	fresh := s.cfg.path(dataNewName)
	if err := s.cfg.takeKeys(fresh); err != nil {
		return err
	}
	if err := s.prepareFiles(); err != nil {
		return err
	}
	if err := resetBinlog(fresh, s.cfg.Install.Version.Release(), s.cfg.ServerID, time.Now()); err != nil {
		return err
	}
	if err := s.run(ctx, "--datadir="+fresh); err != nil {
		return err
	}
	return s.Kill()
}

// exchange puts the data of a folder in the place of those of the server, which are
// moved aside. Unproved data make way if what they have replaced is still aside: without
// a trace, or, with keep, to where new data go that were not good.
func (c Config) exchange(from string, keep bool) error {
	data := c.path(dataName)
	if keep {
		if err := os.WriteFile(filepath.Join(data, keepName), nil, 0o640); ignoreMissing(err) != nil {
			return fmt.Errorf("mark the old data: %w", err)
		}
	}
	_, err := os.Stat(c.path(dataOldName))
	old := err == nil
	switch aside := dataOldName; {
	case old && c.unproved() && !keep:
		if err := c.discard(dataName); err != nil {
			return err
		}
	default:
		if old && c.unproved() {
			aside = dataRefusedName
		}
		if err := c.discard(aside); err != nil {
			return err
		}
		if err := ignoreMissing(os.Rename(data, c.path(aside))); err != nil {
			return fmt.Errorf("move the old data aside: %w", err)
		}
	}
	if err := os.Rename(c.path(from), data); err != nil {
		return fmt.Errorf("move new data into place: %w", err)
	}
	return syncTree(data)
}

func (s *Server) forgetCrashes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashes = Crashes{} // those of other data
}

// readMarker returns the marker of a folder of data.
func (c Config) readMarker(name string) (m marker, err error) {
	b, err := os.ReadFile(filepath.Join(c.path(name), markerName))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// writeMarker makes the marker, durably.
func (c Config) writeMarker(dir string, unproved bool) error {
	b, err := json.Marshal(marker{
		Format: 1, Engine: c.Install.Version.String(), Created: time.Now().UTC().Format(time.RFC3339), Unproved: unproved,
	})
	if err != nil {
		return fmt.Errorf("encode marker: %w", err)
	}
	tmp := filepath.Join(dir, markerName+".tmp")
	err = os.WriteFile(tmp, append(b, '\n'), 0o640)
	if err == nil {
		err = syncFile(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, markerName))
	}
	if err == nil {
		err = syncFile(dir)
	}
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	return nil
}

func (c Config) unproved() bool {
	m, err := c.readMarker(dataName)
	return err == nil && m.Unproved
}

// Unproved reports whether the data have taken the place of others and have not
// proved good yet.
func (s *Server) Unproved() bool { return s.cfg.unproved() }

// Prove notes that the data are good, and removes what they have replaced unless it is
// worth a look.
func (s *Server) Prove() error {
	if err := s.cfg.writeMarker(s.cfg.path(dataName), false); err != nil {
		return err
	}
	if _, keep, there := s.OldData(); !there || keep {
		return nil
	}
	return s.cfg.discard(dataOldName)
}

// RefusedData tells where new data are that were not good, if there are any.
func (s *Server) RefusedData() (path string, there bool) {
	path = s.cfg.path(dataRefusedName)
	_, err := os.Stat(path)
	return path, err == nil
}

// OldData tells where replaced data are, if they are there, and whether they are worth
// a look.
func (s *Server) OldData() (path string, keep, there bool) {
	path = s.cfg.path(dataOldName)
	if _, err := os.Stat(path); err != nil {
		return path, false, false
	}
	_, err := os.Stat(filepath.Join(path, keepName))
	return path, err == nil, true
}
