package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/phxsql/phxsql/internal/events"
)

// maxEventLines is how many lines the file of events may have before it is written
// anew with those that count.
const maxEventLines = 4 * events.Keep

// eventsFile holds the newest events, one JSON object a line. An event that came
// from the log has an instance; a later line of the same id counts more. A line that
// a crash has torn is passed over.
type eventsFile struct {
	path  string
	f     *os.File
	lines int
}

func openEventsFile(path string) (*eventsFile, []events.Event, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("read events: %w", err)
	}
	var list []events.Event
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 2*events.MaxEvent)
	e := &eventsFile{path: path}
	for lines.Scan() {
		e.lines++
		var ev events.Event
		if json.Unmarshal(lines.Bytes(), &ev) == nil && ev.ID != "" {
			list = append(list, ev)
		}
	}
	if e.f, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640); err != nil {
		return nil, nil, fmt.Errorf("open events: %w", err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		_, err = e.f.WriteString("\n")
	}
	return e, list, err
}

// append adds events and makes them durable; all is what counts with them.
func (e *eventsFile) append(fresh, all []events.Event) error {
	if e.lines+len(fresh) > maxEventLines {
		return e.rewrite(all)
	}
	var b bytes.Buffer
	if err := encodeLines(&b, fresh); err != nil {
		return err
	}
	e.lines += len(fresh)
	if _, err := e.f.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if err := e.f.Sync(); err != nil {
		return fmt.Errorf("sync events: %w", err)
	}
	return nil
}

func (e *eventsFile) rewrite(all []events.Event) error {
	var b bytes.Buffer
	if err := encodeLines(&b, all); err != nil {
		return err
	}
	if err := writeSynced(e.path, b.Bytes()); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	f, err := os.OpenFile(e.path, os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open events: %w", err)
	}
	_ = e.f.Close()
	e.f, e.lines = f, len(all)
	return nil
}

func (e *eventsFile) close() { _ = e.f.Close() } // each append is synced

func encodeLines(b *bytes.Buffer, list []events.Event) error {
	enc := json.NewEncoder(b)
	for _, ev := range list {
		if err := enc.Encode(ev); err != nil {
			return fmt.Errorf("encode event: %w", err)
		}
	}
	return nil
}

// mastery is what a node remembers of its last reign, so that its next life can say
// what became of it. It is written aside: nothing depends on it.
type mastery struct {
	Format int    `json:"format"` // 1
	Epoch  uint64 `json:"epoch"`  // the newest in which its gate was open
	Open   bool   `json:"open"`   // its gate was open
	// Machine is drawn by the kernel at each start of the machine.
	Machine string `json:"machine"`

	changed bool
}

const masteryName = "mastery.json"

func readMastery(dir string) (mastery, error) {
	b, err := os.ReadFile(filepath.Join(dir, masteryName))
	if errors.Is(err, os.ErrNotExist) {
		return mastery{}, nil
	}
	if err != nil {
		return mastery{}, fmt.Errorf("read %s: %w", masteryName, err)
	}
	var m mastery
	if json.Unmarshal(b, &m) != nil || m.Format != 1 {
		return mastery{}, nil // nothing depends on it
	}
	return m, nil
}

func (m mastery) write(dir string) error {
	if !m.changed {
		return nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(dir, masteryName), append(b, '\n'))
}

// machineBoot names this start of the machine; empty if the kernel does not tell.
func machineBoot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
