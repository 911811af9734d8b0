package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// logPipe lies between an agent and the file of its log. Its reader can stand still, as
// does one whose disk hangs: who writes a line waits then, and everybody else who logs
// waits for him.
type logPipe struct {
	in, out *os.File
	moving  sync.Mutex // held for each move from the pipe to the file, and while the reader stands still
	still   atomic.Bool
	done    chan struct{} // closed when everything was read
}

// The pipe.
const (
	logPiece = 4096                  // bytes that are read at once
	logFull  = 10 * time.Millisecond // the pipe is full when it takes nothing for so long
	logDrain = time.Second           // for what an agent has said last
)

// newLogPipe starts to move what is written to in to a file.
func newLogPipe(to io.Writer) (*logPipe, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe of log: %w", err)
	}
	p := &logPipe{in: in, out: out, done: make(chan struct{})}
	go p.move(to)
	return p, nil
}

// move ends when nobody can write any more, or by the deadline that close sets.
func (p *logPipe) move(to io.Writer) {
	defer close(p.done)
	buf := make([]byte, logPiece)
	for {
		n, err := p.out.Read(buf)
		p.moving.Lock()
		_, werr := to.Write(buf[:n])
		p.moving.Unlock()
		if err != nil || werr != nil {
			return
		}
	}
}

// stick has the reader stand still, and fills the pipe.
func (p *logPipe) stick(ctx context.Context) error {
	if p.still.Load() {
		return nil
	}
	p.moving.Lock()
	p.still.Store(true)
	// The agent's own end blocks; this is another one of the same pipe.
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", p.in.Fd()), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("fill pipe of log: %w", err)
	}
	defer w.Close()
	raw, err := w.SyscallConn()
	if err != nil {
		return fmt.Errorf("fill pipe of log: %w", err)
	}
	for filled := true; filled && err == nil; wait(ctx, logFull) { // the reader may have taken a piece before it stood still
		filled, err = fill(raw)
	}
	if err != nil {
		return fmt.Errorf("fill pipe of log: %w", err)
	}
	return nil
}

// fill writes empty lines until no more fit, and reports whether any did.
func fill(raw syscall.RawConn) (some bool, err error) {
	cerr := raw.Write(func(fd uintptr) bool {
		for err == nil {
			if _, err = syscall.Write(int(fd), []byte{'\n'}); err == nil {
				some = true
			}
		}
		return true
	})
	if errors.Is(err, syscall.EAGAIN) {
		err = nil
	}
	return some, errors.Join(err, cerr)
}

// release lets the reader go on.
func (p *logPipe) release() {
	if p != nil && p.still.CompareAndSwap(true, false) {
		p.moving.Unlock()
	}
}

// close returns when what the agent has written is in the file. The agent has ended.
func (p *logPipe) close() {
	if p == nil {
		return
	}
	p.release()
	_ = p.in.Close()
	_ = p.out.SetReadDeadline(time.Now().Add(logDrain)) // somebody else may hold the other end
	<-p.done
	_ = p.out.Close()
}

// StickLog has nobody read what the node's agent logs, until Heal. Only with
// Options.LogPipes, and while the agent runs.
func (n *Node) StickLog(ctx context.Context) error {
	if n.pipe == nil || !n.Running() {
		return nil
	}
	return n.pipe.stick(ctx)
}

// hangLog has nobody read what the master logs, and cuts it off: it learns that it is
// deposed, and hangs before it has ended its sessions.
func hangLog(*rand.Rand) Fault {
	var lost ways
	return Fault{
		Name: "nobody reads the master's log, and the master is cut off",
		Break: func(ctx context.Context, c *Cluster, m *Node) error {
			lost = between([]*Node{m}, c.without([]*Node{m}), true)
			return errors.Join(m.StickLog(ctx), lost.cut())
		},
		Mend: func(_ context.Context, _ *Cluster, m *Node) error { return errors.Join(lost.restore(), m.Heal()) },
	}
}

func init() {
	Kinds = append(Kinds, Kind{
		Name: "hang-master-log", Family: "hang", Weight: 6, Hold: seconds(1, 7), Unfit: needsNamespaces,
		Prepare: func(o *Options) { o.LogPipes = true }, Make: hangLog,
	})
}
