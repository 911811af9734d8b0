package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The limits of the folder.
const (
	MaxOne     = 64 << 20  // bytes of transactions of one binary log; what follows is not kept
	MaxAll     = 256 << 20 // bytes of all that is judged; the oldest goes
	MaxFolders = 20        // judged binary logs; the oldest goes
	maxPending = 8         // binary logs that wait to be judged; the oldest goes
	maxGTIDs   = 64 << 10  // bytes of a GTID set in the judgement's file
)

// The names in a folder.
const (
	lifeExt      = ".life"
	tailName     = "tail.binlog"
	evidenceName = "evidence.json"
)

// Life says whose a binary log is.
type Life struct {
	File  string    `json:"file"` // its name in the data directory
	Taken time.Time `json:"taken"`
	Epoch uint64    `json:"epoch"` // the newest in which this node was the master; 0: not known
	// Acked is the offset in the file before which everything was acknowledged; 0: not
	// known.
	Acked int64 `json:"acked"`
}

// Pending is a binary log that waits to be judged.
type Pending struct {
	Life
	path string
}

// Kept is what is written beside what is kept.
type Kept struct {
	Life
	Judged    time.Time `json:"judged"`
	Through   uint64    `json:"through"` // the instance through which the log was known
	Count     uint64    `json:"count"`
	GTIDs     string    `json:"gtids"`
	Chosen    uint64    `json:"chosen"`
	InEngine  uint64    `json:"in_engine"`
	BeforeAck uint64    `json:"before_ack"`
	Bytes     int64     `json:"bytes"` // of the transactions in the file
	Cut       bool      `json:"cut"`   // the file does not hold all of them
	Read      string    `json:"read"`  // how to read it
}

// Folder is where evidence lies. Its methods are for one goroutine at a time, and
// Take may run beside the others.
type Folder struct{ Dir string }

// errFound ends a scan.
var errFound = errors.New("found")

// Take gives a binary log a second name in the folder, if it holds transactions. It
// reports whether it did. The file may be removed then.
func (f Folder) Take(file string, l Life) (bool, error) {
	r, err := os.Open(file)
	if err != nil {
		return false, fmt.Errorf("keep binary log: %w", err)
	}
	_, err = Scan(r, func(Txn) error { return errFound })
	_ = r.Close()
	if !errors.Is(err, errFound) {
		return false, nil
	}
	if err := os.MkdirAll(f.Dir, 0o750); err != nil {
		return false, fmt.Errorf("keep binary log: %w", err)
	}
	l.File = filepath.Base(file)
	path := filepath.Join(f.Dir, fmt.Sprintf("%d-%s", l.Taken.UnixNano(), l.File))
	text, err := json.Marshal(l)
	if err != nil {
		return false, fmt.Errorf("keep binary log: %w", err)
	}
	if err := os.WriteFile(path+lifeExt, append(text, '\n'), 0o640); err != nil {
		return false, fmt.Errorf("keep binary log: %w", err)
	}
	if err := os.Link(file, path); err != nil {
		_ = os.Remove(path + lifeExt)
		return false, fmt.Errorf("keep binary log: %w", err)
	}
	return true, nil
}

// Pending returns what waits to be judged, the oldest first, and drops what is too
// much.
func (f Folder) Pending() ([]Pending, error) {
	names, err := f.names(func(name string) bool { return strings.HasSuffix(name, lifeExt) })
	if err != nil {
		return nil, err
	}
	var list []Pending
	for _, name := range names {
		p := Pending{path: filepath.Join(f.Dir, strings.TrimSuffix(name, lifeExt))}
		text, err := os.ReadFile(p.path + lifeExt)
		if err == nil {
			err = json.Unmarshal(text, &p.Life)
		}
		if _, serr := os.Stat(p.path); err != nil || serr != nil {
			_ = p.drop() // interrupted while it was taken
			continue
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Pending) int { return a.Taken.Compare(b.Taken) })
	for len(list) > maxPending {
		_ = list[0].drop()
		list = list[1:]
	}
	return list, nil
}

func (p Pending) drop() error { return errors.Join(os.Remove(p.path+lifeExt), os.RemoveAll(p.path)) }

// names lists the folder's own names that are wanted, ascending; none if there is no
// folder.
func (f Folder) names(want func(string) bool) ([]string, error) {
	entries, err := os.ReadDir(f.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list evidence: %w", err)
	}
	var names []string
	for _, e := range entries {
		if want(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Judge compares a binary log with what is known, keeps what was not chosen as a
// folder, whose path it returns, and drops the rest. Path is empty if all was chosen.
func (f Folder) Judge(p Pending, known Known, through uint64, now time.Time) (k Kept, path string, err error) {
	r, err := os.Open(p.path)
	if err != nil {
		return k, "", fmt.Errorf("judge binary log: %w", err)
	}
	defer r.Close() //nolint:errcheck // only read
	known.Acked = p.Acked
	j, err := Judge(r, known)
	if err != nil {
		return k, "", fmt.Errorf("judge binary log %s: %w", p.File, err)
	}
	k = Kept{
		Life: p.Life, Judged: now, Through: through, Count: j.Count, GTIDs: clip(j.Set.String()), Chosen: j.Chosen,
		InEngine: j.InEngine, BeforeAck: j.BeforeAck, Read: "mysqlbinlog --verbose --base64-output=decode-rows " + tailName,
	}
	if j.Count == 0 {
		return k, "", p.drop()
	}
	path = filepath.Join(f.Dir, now.UTC().Format("2006-01-02T15.04.05.000Z"))
	if err := os.MkdirAll(path, 0o750); err != nil {
		return k, "", fmt.Errorf("keep evidence: %w", err)
	}
	if k.Bytes, err = writeTail(r, filepath.Join(path, tailName), j); err != nil {
		return k, "", fmt.Errorf("keep evidence: %w", err)
	}
	k.Cut = k.Bytes < j.To-j.From
	text, err := json.MarshalIndent(k, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(path, evidenceName), append(text, '\n'), 0o640)
	}
	if err != nil {
		return k, "", fmt.Errorf("keep evidence: %w", err)
	}
	return k, path, errors.Join(p.drop(), f.prune())
}

// writeTail writes the head of a binary log and its transactions from j.From on, as
// many whole ones as the limit allows, and returns their size.
func writeTail(r *os.File, path string, j Judgement) (int64, error) {
	end := j.From
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	_, err := Scan(r, func(t Txn) error {
		if t.Start >= j.From && t.End-j.From <= MaxOne {
			end = t.End
		}
		if t.End-j.From > MaxOne {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return 0, err
	}
	w, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(w, io.NewSectionReader(r, 0, j.Head))
	if err == nil {
		_, err = io.Copy(w, io.NewSectionReader(r, j.From, end-j.From))
	}
	return end - j.From, errors.Join(err, w.Sync(), w.Close())
}

// prune removes the oldest beyond the limits.
func (f Folder) prune() error {
	names, err := f.names(func(name string) bool {
		_, err := os.Stat(filepath.Join(f.Dir, name, evidenceName))
		return err == nil
	})
	if err != nil {
		return err
	}
	var total int64
	for n := len(names) - 1; n >= 0; n-- {
		path := filepath.Join(f.Dir, names[n])
		if st, err := os.Stat(filepath.Join(path, tailName)); err == nil {
			total += st.Size()
		}
		if len(names)-n > MaxFolders || total > MaxAll && n < len(names)-1 {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove old evidence: %w", err)
			}
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) <= maxGTIDs {
		return s
	}
	return s[:maxGTIDs] + "..."
}
