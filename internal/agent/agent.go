package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/cluster"
	"github.com/phxsql/phxsql/internal/config"
	"github.com/phxsql/phxsql/internal/engine"
	"github.com/phxsql/phxsql/internal/host"
	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/internal/mysqld"
	"github.com/phxsql/phxsql/internal/proxy"
	"github.com/phxsql/phxsql/internal/relay"
	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/vfs"
	"github.com/phxsql/phxsql/wal"
)

// dataGroup is the one log that a node replicates.
const dataGroup paxos.Group = 1

// stopLimit is how long a node that is stopped has to hand over and to end.
const stopLimit = 20 * time.Second

// Options are what a node needs besides its configuration.
type Options struct {
	Logger   *slog.Logger
	Events   *telemetry.Events    // may be nil
	Registry *prometheus.Registry // may be nil
	// Ready, if not nil, is called once when the admin API answers.
	Ready func()
	// Restart, if not nil, looks whether this program could be started again as it
	// lies on the disk now, with the configuration that lies there. Run returns
	// ErrRestart when that is to be done. Without it a node refuses to restart.
	Restart func(ctx context.Context) error
}

// Agent is one running node. It implements api.Node.
type Agent struct {
	cfg        config.Config
	opt        Options
	log        *slog.Logger
	install    engine.Install
	advertised config.Addresses
	creds      *identity.Credentials
	secret     *identity.Secret
	boot       string

	listeners [4]net.Listener // rw, ro, peer, admin
	wal       *wal.Log
	host      *host.Host
	group     *host.Group
	transport *transport.Transport
	db        *localServer
	proxy     *proxy.Proxy
	relays
	base      relay.Base // what the journal begins from
	retention retention
	canaries  canaries
	history   *history
	auditor   auditor
	audits    audits
	valve     valve           // of the master's transactions on their way into the log
	running   context.Context // ends with the node
	salvage   salvage
	copying   copying
	proof     proof
	way       way
	donors    donors
	pacer     *pacer
	commits   commitMeter
	flow      flow
	joining   joining
	changeMu  sync.Mutex // one change of the membership at a time
	guestMu   sync.Mutex
	guests    map[paxos.NodeID]string // nodes that are asked to join, with their addresses
	loop      *loop
	peers     *peers
	calls     map[string]transport.CallHandler

	rolling rolling

	initMu sync.Mutex
	seq    uint64 // of announcements; announcer only
	fatal  context.CancelCauseFunc
	wg     sync.WaitGroup
}

// Run runs a node until ctx ends; then it hands leadership over if it has it,
// stops its server, and returns nil. Every other end is an error; see ErrRestart.
func Run(ctx context.Context, cfg config.Config, opt Options) error {
	a := &Agent{cfg: cfg, opt: opt, log: opt.Logger.With(telemetry.KeyNode, uint64(cfg.Node.ID)), peers: newPeers(), pacer: newPacer(int64(cfg.Copy.Rate)), guests: map[paxos.NodeID]string{}, boot: rand.Text()}
	a.canaries.limit, a.canaries.minFree = time.Duration(cfg.Health.StallLimit), int64(cfg.Health.MinFree)
	if err := a.check(ctx); err != nil {
		return err
	}
	// What runs in the background outlives ctx, which only asks for the end.
	run, fatal := context.WithCancelCause(context.WithoutCancel(ctx))
	a.fatal, a.running = fatal, run
	defer a.close()
	if err := a.build(run); err != nil {
		fatal(err)
		return err
	}
	a.start(run)
	if opt.Ready != nil {
		opt.Ready()
	}
	select {
	case <-ctx.Done():
		a.log.Info("node stops")
		a.leave()
		fatal(errStopped)
	case <-a.rolling.asked():
		a.log.Info("node restarts")
		a.leave()
		fatal(errStopped)
		return ErrRestart
	case <-run.Done():
	case <-a.loop.done:
	}
	if err := context.Cause(run); err != nil && !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// check refuses what cannot work before anything is touched.
func (a *Agent) check(ctx context.Context) error {
	if err := a.cfg.CheckMachine(); err != nil {
		return err
	}
	if err := checkClock(); err != nil {
		return err
	}
	var err error
	if a.advertised, err = a.cfg.Advertised(); err != nil {
		return err
	}
	if a.secret, err = identity.LoadSecret(a.cfg.Cluster.SecretFile); err != nil {
		return err
	}
	if a.creds, err = a.secret.CredentialsUnder(a.cfg.Node.ID, identity.Terms{Lifetime: a.cfg.Cluster.CertificateLifetime.D()}); err != nil {
		return err
	}
	a.install, err = engine.Find(ctx, engine.Options{Basedir: a.cfg.Engine.Basedir})
	if errors.Is(err, engine.ErrNotFound) && a.witness() {
		a.install, err = engine.Install{Server: "none"}, nil // never started
	}
	if errors.Is(err, engine.ErrNotFound) {
		return hinted{err, "install one, or run 'phxsql engine fetch'"}
	}
	return err
}

// build makes all parts; none of them works before start.
func (a *Agent) build(ctx context.Context) error {
	if err := a.listen(); err != nil {
		return err
	}
	if err := claimDir(a.cfg.Node.DataDir, a.cfg.Node.ID); err != nil {
		return err
	}
	if err := a.joining.load(a.cfg.Node.DataDir); err != nil {
		return err
	}
	if err := a.buildDatabase(); err != nil { // takes the lock of the folder
		return err
	}
	if _, err := checkDisk(a.cfg.Node.DataDir, time.Duration(a.cfg.Consensus.Lease)/2); err != nil {
		return err
	}
	if err := a.buildLog(); err != nil {
		return err
	}
	if err := a.buildRelays(ctx); err != nil {
		return err
	}
	if err := a.buildHistory(); err != nil {
		return err
	}
	a.buildAudits()
	return a.buildPorts()
}

func (a *Agent) listen() error {
	for i, addr := range []string{a.cfg.Listen.RW, a.cfg.Listen.RO, a.cfg.Listen.Peer, a.cfg.Listen.Admin} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			if why, hint := config.PortFault(addr); why != "" {
				return hinted{errors.New(why), hint}
			}
			return fmt.Errorf("listen: %w", err)
		}
		a.listeners[i] = l
	}
	return nil
}

func (a *Agent) buildDatabase() error {
	e := a.cfg.Engine
	s, err := mysqld.Open(mysqld.Config{
		Install: a.install, Dir: filepath.Dir(a.cfg.SocketPath()), ServerID: uint32(a.cfg.Node.ID),
		BufferPool: int64(e.BufferPoolSize), MaxConnections: e.MaxConnections, PerformanceSchema: e.PerformanceSchema,
		StrictFlush: e.StrictFlush, Options: e.Options, KeepBinlog: a.keepBinlog, Logger: a.component("mysqld"),
	})
	if err != nil {
		return err
	}
	a.db = &localServer{Server: s}
	return nil
}

func (a *Agent) component(name string) *slog.Logger { return a.log.With(telemetry.KeyComponent, name) }

// buildLog opens the log and the network of members.
func (a *Agent) buildLog() error {
	var err error
	a.wal, err = wal.Open(wal.Options{FS: watchedFS{vfs.OS{}, &a.canaries.log}, Dir: filepath.Join(a.cfg.Node.DataDir, "log"), Salvage: true, Logger: a.component("wal")})
	if err != nil {
		return err
	}
	a.transport, err = transport.New(transport.Options{
		Node: a.cfg.Node.ID, Listener: a.listeners[2], Self: a.hello, Admit: a.admit, Credentials: a.creds, Logger: a.component("transport"),
	})
	if err != nil {
		return err
	}
	a.handleCalls()
	if err := a.recoverBase(); err != nil {
		return err
	}
	clock, err := a.clock()
	if err != nil {
		return err
	}
	a.host = host.New(host.Options{
		Log: a.wal, Clock: clock, Sender: a.transport, Logger: a.component("host"),
		Failed: func(err error) { a.fatal(fmt.Errorf("the log has failed: %w", err)) },
	})
	pc := paxos.Defaults(a.cfg.Node.ID, randBelow)
	pc.Lease, pc.Heartbeat, pc.ClockError = time.Duration(a.cfg.Consensus.Lease), time.Duration(a.cfg.Consensus.Heartbeat), a.cfg.Consensus.ClockError
	if a.group, err = a.host.Start(dataGroup, pc); err != nil {
		return err
	}
	return a.checkMembership()
}

// randBelow returns a random number in [0, n).
func randBelow(n int64) int64 {
	v, err := rand.Int(rand.Reader, big.NewInt(n))
	if err != nil {
		panic(fmt.Sprintf("agent: read random numbers: %v", err)) // never fails
	}
	return v.Int64()
}

// checkMembership refuses a log that is not this node's own.
func (a *Agent) checkMembership() error {
	ms := a.group.Leader().Members
	if ms.Blank() {
		return nil
	}
	m, ok := ms.Find(a.cfg.Node.ID)
	if ok && m.Log != "" && m.Log != a.wal.Identity() {
		return hinted{fmt.Errorf("open log: member %d of cluster %s has log %s, this is %s", m.ID, ms.Cluster, m.Log, a.wal.Identity()),
			"a copy of another node's data directory? Each node needs its own"}
	}
	return nil
}

func (a *Agent) buildPorts() error {
	g := &gates{busy: busySessions(a.db.Server), addr: a.rwAddr, lease: a.group.LeaseValid}
	p, err := proxy.New(proxy.Options{
		Socket: a.db.Socket(), Gate: g.allows, Key: serverKey(filepath.Join(filepath.Dir(a.db.Socket()), "data", "private_key.pem")),
		Secret: a.secret.Derive("proxy hop"), Node: uint64(a.cfg.Node.ID), HoldLimit: time.Duration(a.cfg.Proxy.ConnectTimeout),
		MaxSessions: a.cfg.Proxy.MaxConnections, ServerSessions: a.cfg.Engine.MaxConnections, Logger: a.component("proxy"),
	})
	if err != nil {
		return err
	}
	a.proxy, g.proxy = p, p
	a.loop = newLoop(a.cfg.Node.ID, a.log)
	a.loop.cons, a.loop.jour, a.loop.db, a.loop.tail, a.loop.gate = consensusOf{a.group}, a.journal, a.db, a.tail, g
	if a.db.Initialized() || a.db.Damaged() != nil {
		a.loop.view.Engine.State = cluster.EngineStopped
	}
	a.loop.restored = a.db.Unproved() || a.needsProof()
	a.loop.early, a.loop.fresh = a.loop.restored, a.needsProof()
	a.loop.diskFull, a.loop.expelled, a.loop.canaries = a.host.DiskFull, a.expelled, &a.canaries
	a.loop.ticks = func() (uint64, bool) { return ticksOf(a.db.PID()) }
	a.loop.restarting = a.db.restarting
	a.loop.peers, a.loop.awaitApplied, a.loop.heard = a.peers, a.awaitApplied, a.caughtUp
	a.loop.restorer, a.loop.wanted = a, a.joining.role
	a.loop.told = a.toldOf()
	return nil
}

// consensusOf makes a host.Group what the loop wants of the consensus.
type consensusOf struct{ *host.Group }

func (c consensusOf) Leadership() paxos.Leadership { return c.Leader().Leadership }
func (c consensusOf) Members() paxos.Members       { return c.Leader().Members }

// start sets everything going. All of it ends with ctx.
func (a *Agent) start(ctx context.Context) {
	a.followMembers()
	if err := a.transport.Start(a); err != nil {
		a.fatal(err)
	}
	a.startRelays(ctx)
	a.startHistory(ctx)
	a.wg.Go(func() { a.loop.serve(ctx) })
	a.wg.Go(func() { a.watchMembers(ctx) })
	a.wg.Go(func() { a.announce(ctx) })
	a.wg.Go(func() { a.retain(ctx) })
	a.wg.Go(func() { a.audit(ctx) })
	if !a.witness() {
		go a.canaries.probe(ctx, filepath.Dir(a.db.Socket()), filepath.Join(a.cfg.Node.DataDir, "log")) // hangs with the disk
		a.wg.Go(func() { a.watchCommits(ctx) })
	}
	a.wg.Go(func() { a.watchLack(ctx) })
	a.wg.Go(func() { a.watchPace(ctx) })
	a.wg.Go(func() { a.watchFlow(ctx) })
	a.wg.Go(func() { a.pursueJoin(ctx) })
	a.wg.Go(func() { a.pursueProof(ctx) })
	a.wg.Go(func() { a.pursueWay(ctx) })
	a.wg.Go(func() { a.must(a.proxy.ServeRW(a.listeners[0])) })
	a.wg.Go(func() { a.must(a.proxy.ServeRO(a.listeners[1])) })
	so := api.ServerOptions{Node: a, Events: a.opt.Events, Logger: a.log, TLS: func() tlsConfig { return api.ServerTLS(a.creds) }}
	if a.opt.Registry != nil {
		so.Metrics = a.opt.Registry
	}
	srv := api.NewServer(so)
	a.wg.Go(func() { a.must(srv.Serve(ctx, a.listeners[3])) })
}

// must ends the node when a part of it fails.
func (a *Agent) must(err error) {
	if err != nil {
		a.fatal(err)
	}
}

// close ends all parts, those that use others first. The server is dead or
// stopped before its log is closed.
func (a *Agent) close() {
	a.fatal(errStopped)
	if a.proxy != nil {
		_ = a.proxy.Close()
	}
	if a.db != nil {
		if err := a.db.Close(); err != nil {
			a.log.Error("server not ended", telemetry.KeyError, err)
		}
	}
	a.closeRelays()
	if a.transport != nil {
		_ = a.transport.Close()
	}
	for _, l := range a.listeners {
		if l != nil {
			_ = l.Close() // those that no part has taken yet
		}
	}
	if a.host != nil {
		a.host.Close()
	}
	a.wg.Wait()
	if a.wal != nil {
		if err := a.wal.Close(); err != nil {
			a.log.Error("log not closed", telemetry.KeyError, err)
		}
	}
}
