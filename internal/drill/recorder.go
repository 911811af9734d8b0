package drill

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Recorder keeps what clients were told: when writes were acknowledged, and, if it has
// a file, every operation as a line of JSON. It is safe for concurrent use.
type Recorder struct {
	begun time.Time

	mu     sync.Mutex
	file   *os.File
	out    *bufio.Writer
	failed error   // the first failure to write
	acks   []int64 // when acknowledgements came
	newest int64   // when the newest acknowledged write began
}

// record is a line of the history.
type record struct {
	Load    string `json:"load"`
	Begin   int64  `json:"begin"` // nanoseconds since the drill began
	End     int64  `json:"end"`
	Outcome string `json:"outcome"`
	What    any    `json:"what,omitempty"`
	Error   string `json:"error,omitempty"`
}

// NewRecorder starts the clock. An empty path keeps no history.
func NewRecorder(path string) (*Recorder, error) {
	r := &Recorder{begun: time.Now()}
	if path == "" {
		return r, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("make history: %w", err)
	}
	r.file, r.out = f, bufio.NewWriterSize(f, 1<<16)
	return r, nil
}

// Now is the time of the drill, in nanoseconds; 0 without a recorder.
func (r *Recorder) Now() int64 {
	if r == nil {
		return 0
	}
	return int64(time.Since(r.begun))
}

var outcomeWords = map[Outcome]string{Acknowledged: "acknowledged", Refused: "refused", Unknown: "unknown"}

// Write notes the outcome of a write.
func (r *Recorder) Write(load string, begin, end int64, o Outcome, what any, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o == Acknowledged {
		r.acks = append(r.acks, end)
		r.newest = max(r.newest, begin)
	}
	r.line(record{Load: load, Begin: begin, End: end, Outcome: outcomeWords[o], What: what}, err)
}

// Read notes an answer.
func (r *Recorder) Read(load string, begin, end int64, what any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line(record{Load: load, Begin: begin, End: end, Outcome: "read", What: what}, nil)
}

// NoConnection notes that a client could not connect. A recorder that is nil notes
// nothing.
func (r *Recorder) NoConnection(addr string, begin int64, err error) {
	if r == nil {
		return
	}
	end := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line(record{Load: "connect", Begin: begin, End: end, Outcome: "no connection", What: addr}, err)
}

func (r *Recorder) line(rec record, err error) {
	if r.out == nil || r.failed != nil {
		return
	}
	if err != nil {
		rec.Error = err.Error()
	}
	b, err := json.Marshal(rec)
	if err == nil {
		_, err = r.out.Write(append(b, '\n'))
	}
	r.failed = err
}

// Close ends the history.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out == nil {
		return nil
	}
	err := errors.Join(r.failed, r.out.Flush(), r.file.Close())
	r.out = nil
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

// Acks are the moments of all acknowledgements, roughly ascending.
func (r *Recorder) Acks() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]int64(nil), r.acks...)
}

// WaitAck waits until a write is acknowledged that began at a moment or later.
func (r *Recorder) WaitAck(since int64, tick func() error) error {
	for {
		r.mu.Lock()
		ok := r.newest >= since
		r.mu.Unlock()
		if ok {
			return nil
		}
		if err := tick(); err != nil {
			return err
		}
	}
}

// Pause is the longest time without an acknowledgement between two moments.
func (r *Recorder) Pause(from, to int64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, longest := from, int64(0)
	for _, t := range r.acks {
		if t <= last || t > to {
			continue
		}
		longest = max(longest, t-last)
		last = t
	}
	return time.Duration(max(longest, to-last))
}
