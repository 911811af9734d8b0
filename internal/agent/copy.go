package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/gtid"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

const (
	lackEvery = 500 * time.Millisecond // how often it is looked whether the log goes on
	lackTimes = 4                      // how often in a row it must lack something that nobody has
)

// copying is what a node knows of the copy that it gets. It is safe for concurrent use.
type copying struct {
	judge atomic.Uint64
	bytes atomic.Int64

	mu    sync.Mutex
	phase string // empty: none under way
	donor offer
	began time.Time
}

func (c *copying) judgeFrom() paxos.Instance { return paxos.Instance(c.judge.Load()) }

func (c *copying) set(phase string, o offer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if phase == copyFetching {
		c.began, c.donor = time.Now(), o
		c.bytes.Store(0)
	}
	c.phase = phase
}

// The phases of a copy.
const (
	copyNone      = ""
	copyExecuting = "executing" // there is no copy: the log is executed instead
	copyFetching  = "copying"   // the data are on their way
	copyApplying  = "applying"  // the log's rest is
	copyProving   = "proving"   // the rows are compared with the master's
)

// from is whose data the copy under way is, or the last one, was of; 0: nobody's.
func (c *copying) from() paxos.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.donor.Node
}

// status describes the copy for people; nil when there is none.
func (c *copying) status() *api.Copy {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == copyNone {
		return nil
	}
	s := &api.Copy{Phase: c.phase, Donor: c.donor.Node, Bytes: c.bytes.Load(), Total: c.donor.Bytes}
	if took := time.Since(c.began); c.phase == copyFetching && took > 0 {
		s.Rate = int64(float64(s.Bytes) / took.Seconds())
		if left := s.Total - s.Bytes; s.Rate > 0 && left > 0 {
			s.Remaining = api.Seconds(time.Duration(float64(left) / float64(s.Rate) * float64(time.Second)))
		}
	}
	return s
}

// FetchCopy lays another member's data beside the own.
func (a *Agent) FetchCopy(ctx context.Context) (paxos.Instance, error) {
	if err := a.proof.wait(time.Now()); err != nil {
		return 0, err
	}
	o, err := a.findDonor(ctx)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	port, err := a.openTunnel(ctx, o)
	if err != nil {
		return 0, err
	}
	go a.watchDonor(ctx, o.Node, cancel)
	a.copying.set(copyFetching, o)
	a.log.Info("copy begins", telemetry.KeyFrom, uint64(o.Node), telemetry.KeyBytes, o.Bytes)
	began := time.Now()
	err = a.db.FetchCopy(ctx, mysqld.Donor{Host: "127.0.0.1", Port: port, Password: o.Password, Bytes: o.Bytes})
	var at location
	if err == nil {
		err = a.call(ctx, o.Node, callLocate, locateRequest{Any: true}, &at)
	}
	if err != nil {
		a.copying.set(copyNone, o)
		a.donors.failed(o.Node, time.Now())
		return 0, fmt.Errorf("copy the data of member %d: %w", o.Node, err)
	}
	a.donors.got()
	a.copying.judge.Store(max(a.copying.judge.Load(), uint64(at.Chosen)))
	a.copying.set(copyApplying, o)
	a.log.Info("copy complete", telemetry.KeyFrom, uint64(o.Node), telemetry.KeyBytes, a.db.CopySize(), telemetry.KeyDuration, time.Since(began))
	return at.Chosen, nil
}

// AdoptCopy puts the copy in the place of the data.
func (a *Agent) AdoptCopy(ctx context.Context, keep bool) error {
	return a.replaceData(func() error { return a.db.AdoptCopy(ctx, keep) })
}

// SetAside puts new data in the place of those that the server cannot run on.
func (a *Agent) SetAside(ctx context.Context) error {
	return a.replaceData(func() error { return a.db.SetAside(ctx) })
}

func (a *Agent) replaceData(replace func() error) error {
	if err := replace(); err != nil {
		return err
	}
	a.db.uuid.Store(nil)
	a.retention.held.Store(0)
	return nil
}

// Restored drops what the data have replaced, unless it is worth a look.
func (a *Agent) Restored() {
	a.copying.set(copyNone, offer{})
	if err := a.db.Prove(); err != nil {
		a.log.Warn("replaced data not removed", telemetry.KeyError, err)
	}
	if path, there := a.db.RefusedData(); there {
		a.log.Warn("refused data are kept", telemetry.KeyDir, path, telemetry.KeyHint, "a copy that was not like the master's rows; remove the folder when nobody needs it")
	}
	if path, keep, there := a.db.OldData(); there && keep {
		a.log.Warn("replaced data are kept", telemetry.KeyDir, path, telemetry.KeyHint, "they hold transactions that the cluster does not; remove the folder when nobody needs it")
	}
}

// openTunnel leads a port of the loopback to the donor's server, for as long as ctx
// lives: through a connection of its own to the donor's agent, with mutual TLS.
func (a *Agent) openTunnel(ctx context.Context, o offer) (port int, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("listen for the copy: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer stop()
				if err := a.pipeDonor(ctx, c, o); err != nil && ctx.Err() == nil {
					a.log.Warn("copy interrupted", telemetry.KeyFrom, uint64(o.Node), telemetry.KeyError, err)
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

func (a *Agent) pipeDonor(ctx context.Context, c net.Conn, o offer) error {
	d, err := api.DialCopy(ctx, o.Admin, api.ClientTLS(a.creds))
	if err != nil {
		return err
	}
	defer d.Close()
	stop := context.AfterFunc(ctx, func() { _ = d.Close() })
	defer stop()
	return api.Pipe(c, d, &a.copying.bytes)
}

// CopyStream connects another member with the local server.
func (a *Agent) CopyStream(ctx context.Context) (net.Conn, error) {
	if err := a.db.PrepareToGive(ctx); err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", a.db.Socket())
	if err != nil {
		return nil, err
	}
	return a.pacer.pace(ctx, c), nil
}

// locateRequest asks where the log goes on for a server that has executed a set, or,
// with Any, for one that has no use of it.
type locateRequest struct {
	Executed string `json:"executed,omitempty"`
	Any      bool   `json:"any,omitempty"`
}

type location struct {
	Base    *baseFile      `json:"base,omitempty"` // nil: nowhere
	Chosen  paxos.Instance `json:"chosen"`
	Refusal string         `json:"refusal,omitempty"`
}

// onLocate answers from the own journal.
func (a *Agent) onLocate(_ context.Context, _ paxos.NodeID, req locateRequest) (location, error) {
	ans := location{Chosen: a.group.Chosen()}
	base := a.journal.Newest()
	if !req.Any {
		set, err := gtid.ParseSet(req.Executed)
		if err == nil {
			base, err = a.journal.Locate(set)
		}
		var trimmed *relay.TrimmedError
		if errors.As(err, &trimmed) {
			ans.Refusal = err.Error()
			return ans, nil
		}
		if err != nil {
			return ans, err
		}
	}
	f := toBaseFile(base, "")
	ans.Base = &f
	return ans, nil
}

// PlaceLog makes the log begin behind what the server holds.
func (a *Agent) PlaceLog(ctx context.Context) (bool, error) {
	req := locateRequest{Any: true}
	if s := a.loop.last.Load(); s.view.Role != paxos.Witness && s.view.Wants != paxos.Witness {
		text, err := a.db.GTIDExecuted(ctx)
		if err != nil {
			return false, err
		}
		req = locateRequest{Executed: text}
	}
	places, failed := askOthers[location](ctx, a, callLocate, req)
	var best *baseFile
	for _, p := range places {
		if p.Base != nil && p.Base.Next-1 > a.group.Chosen() && (best == nil || p.Base.Next > best.Next) {
			best = p.Base
		}
	}
	if best == nil {
		if len(places) == 0 {
			return false, hinted{fmt.Errorf("find where the log goes on: %w", errors.Join(failed...)), "it is tried again; at least one other member must be up"}
		}
		a.log.Info("no log goes on from what the server holds", telemetry.KeyCount, len(places))
		return false, nil
	}
	return true, a.installBase(ctx, best)
}

// installBase makes the log begin at a base.
func (a *Agent) installBase(ctx context.Context, f *baseFile) error {
	base, err := f.base()
	if err != nil {
		return err
	}
	ms, err := paxos.DecodeMembers(base.Members)
	if err != nil {
		return fmt.Errorf("place log: %w", err)
	}
	if err := a.writeBase(base); err != nil {
		return err
	}
	if err := a.journal.Rebase(base, func() error { return a.group.Install(ctx, base.Next-1, ms) }); err != nil {
		return err
	}
	a.log.Info("log begins anew", telemetry.KeyInstance, uint64(base.Next))
	return nil
}

// sourceRefused takes in why the local server cannot replicate from the log.
func (a *Agent) sourceRefused(err error) {
	var trimmed *relay.TrimmedError
	if errors.As(err, &trimmed) {
		go a.loop.post(func() { a.loop.lostBy(err.Error()) })
	}
}

// watchLack tells the loop when the log does not go on because all others have trimmed
// what it lacks, until ctx ends.
func (a *Agent) watchLack(ctx context.Context) {
	t := time.NewTicker(lackEvery)
	defer t.Stop()
	var at paxos.Instance
	for times := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		st, err := a.group.Status(ctx)
		if err != nil {
			continue
		}
		if st.Lacking == 0 || st.Chosen != at {
			times, at = 0, st.Chosen
			continue
		}
		if times++; times >= lackTimes {
			a.loop.post(func() { a.loop.lacks(st.Lacking) })
		}
	}
}
