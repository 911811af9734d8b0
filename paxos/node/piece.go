package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/phxsql/phxsql/paxos"
)

// A value above pieceSize is proposed in pieces: consecutive values of its group, of
// at most pieceSize bytes behind a header. It counts when its last piece is chosen and
// all others are before it with no value of somebody else between them; else it is void, on
// every member alike. (Instances that carry no value may lie between.) So a leader that
// dies in the midst leaves nothing that anybody must remember, and a state machine
// never stands in the midst of a value.
//
//	0        8               24       28       32              40
//	+--------+---------------+--------+--------+---------------+----------
//	| magic  | value, random | index  | count  | size in bytes | the piece
//	+--------+---------------+--------+--------+---------------+----------
//
// Numbers are little-endian. A whole value that happens to begin with the magic is
// proposed as one piece.
const (
	pieceSize   = 1 << 20
	pieceHeader = 40
	// pieceWindow limits the bytes of pieces on their way. Values that are proposed
	// meanwhile wait until the last piece is queued.
	pieceWindow = 16 << 20
)

var pieceMagic = []byte("\xf1pxpiece")

// piece is a part of a value.
type piece struct {
	value        [16]byte
	index, count uint32
	size         uint64
	data         []byte
}

func (p *piece) last() bool { return p.index == p.count-1 }

// split returns how many pieces a value is proposed in, 0 for whole.
func split(value []byte) uint32 {
	if len(value) <= pieceSize && !bytes.HasPrefix(value, pieceMagic) {
		return 0
	}
	return uint32(max(1, (len(value)+pieceSize-1)/pieceSize))
}

func (p *piece) encode() []byte {
	b := make([]byte, 0, pieceHeader+len(p.data))
	b = append(append(b, pieceMagic...), p.value[:]...)
	b = binary.LittleEndian.AppendUint32(b, p.index)
	b = binary.LittleEndian.AppendUint32(b, p.count)
	b = binary.LittleEndian.AppendUint64(b, p.size)
	return append(b, p.data...)
}

// decodePiece reads a piece; is says that the value is one, though perhaps of no
// use, which p.count of 0 tells.
func decodePiece(b []byte) (p piece, is bool) {
	if !bytes.HasPrefix(b, pieceMagic) {
		return piece{}, false
	}
	if len(b) < pieceHeader {
		return piece{}, true
	}
	copy(p.value[:], b[8:])
	p.index, p.count = binary.LittleEndian.Uint32(b[24:]), binary.LittleEndian.Uint32(b[28:])
	p.size, p.data = binary.LittleEndian.Uint64(b[32:]), b[pieceHeader:]
	want := max(1, (p.size+pieceSize-1)/pieceSize)
	length := uint64(pieceSize)
	if p.last() {
		length = p.size - (want-1)*pieceSize
	}
	if p.size > MaxValue || uint64(p.count) != want || p.index >= p.count || uint64(len(p.data)) != length {
		return piece{}, true
	}
	return p, true
}

// whole returns the value that a chosen entry completes; ok is false when it completes
// none: it is a piece before the last, or its value is void. What is through an instance
// is known to belong to other values.
func (g *group) whole(e paxos.Entry, through paxos.Instance) (value []byte, ok bool, err error) {
	p, is := decodePiece(e.Data)
	switch {
	case !is:
		return e.Data, true, nil
	case p.count == 0 || !p.last():
		return nil, false, nil
	case p.count == 1:
		return p.data, true, nil
	}
	value = make([]byte, p.size)
	copy(value[uint64(p.index)*pieceSize:], p.data)
	i := e.Instance
	for want := p.index; want > 0; {
		if i--; i <= through {
			return nil, false, nil
		}
		if i < g.log.First() {
			return nil, false, fmt.Errorf("collect pieces of instance %d: %w", e.Instance, ErrTrimmed)
		}
		b, err := g.log.Read(i)
		if err != nil {
			return nil, false, err
		}
		if b.Kind != paxos.Normal {
			continue
		}
		want--
		q, is := decodePiece(b.Data)
		if !is || q.value != p.value || q.count != p.count || q.size != p.size || q.index != want {
			return nil, false, nil
		}
		copy(value[uint64(want)*pieceSize:], q.data)
	}
	return value, true, nil
}

// proposePieces proposes a value in pieces. Nobody else's value comes between as long
// as this member leads. Before the last piece is queued the value is not proposed.
func (g *group) proposePieces(ctx context.Context, value []byte, count uint32) outcome {
	if !g.leads() {
		return outcome{err: ErrNotLeader}
	}
	if err := g.gate.Acquire(ctx, gateWidth); err != nil {
		return outcome{err: fmt.Errorf("%w: %w", ErrOverload, err)}
	}
	p := piece{count: count, size: uint64(len(value))}
	binary.LittleEndian.PutUint64(p.value[:], rand.Uint64())
	binary.LittleEndian.PutUint64(p.value[8:], rand.Uint64())
	lost := make(chan error, 1)
pieces:
	for ; ; p.index++ {
		from := int(p.index) * pieceSize
		p.data = value[from:min(from+pieceSize, len(value))]
		select {
		case err := <-lost:
			g.gate.Release(gateWidth)
			return outcome{err: fmt.Errorf("%w any more: %w", ErrNotLeader, err)}
		default:
		}
		if p.last() {
			break pieces
		}
		if err := g.proposePiece(ctx, &p, lost); err != nil {
			g.gate.Release(gateWidth)
			return outcome{err: err}
		}
	}
	o := g.proposeOne(ctx, p.encode(), gateWidth)
	if o.err == nil && g.opt.Machine == nil { // nobody has looked yet
		e, err := g.log.Read(o.instance)
		if _, ok, werr := g.whole(e, 0); err == nil && werr == nil && !ok {
			o.err = errVoid
		}
	}
	return o
}

// proposePiece queues a piece that is not the last; lost gets the first failure of any.
func (g *group) proposePiece(ctx context.Context, p *piece, lost chan error) error {
	size := int64(len(p.data)) + callSize
	if err := g.window.Acquire(ctx, size); err != nil {
		return fmt.Errorf("%w: %w", ErrOverload, err)
	}
	err := g.log.ProposeHere(p.encode(), func(_ paxos.Instance, err error) {
		g.window.Release(size)
		if err != nil {
			select {
			case lost <- err:
			default:
			}
		}
	})
	if err != nil {
		g.window.Release(size)
	}
	return err
}

// errVoid says that a value's pieces were parted; ErrNotLeader that it was not proposed.
var errVoid = fmt.Errorf("its pieces were parted by another leader's values: %w", ErrNotLeader)
