package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/phxsql/phxsql/internal/telemetry"
)

// The limits of the server.
const (
	maxBody         = 1 << 20          // bytes of a request; more is refused
	statusTimeout   = 5 * time.Second  // GET /v1/status
	initTimeout     = 5 * time.Minute  // POST /v1/init: engines start, a log is made
	switchTimeout   = 2 * time.Minute  // POST /v1/switchover
	tokenTimeout    = 20 * time.Second // POST /v1/tokens and /v1/join: a change is chosen
	maxEventWait    = 60 * time.Second // GET /v1/events?wait=
	streamWrite     = 30 * time.Second // a stream whose client reads nothing for so long is cut
	shutdownTimeout = 2 * time.Second  // what requests get to end when the server stops
)

// ServerOptions are what a server needs.
type ServerOptions struct {
	Node    Node
	Events  *telemetry.Events   // may be nil: no events
	Metrics prometheus.Gatherer // further metrics; may be nil
	Logger  *slog.Logger
	// TLS is called once for each Serve; see ServerTLS. Nil serves without TLS,
	// and then refuses everything but /healthz and /metrics.
	TLS func() *tls.Config
}

// Server serves the admin API of one node.
type Server struct {
	o   ServerOptions
	log *slog.Logger
	mux *http.ServeMux
}

// NewServer returns a server that is not serving yet.
func NewServer(o ServerOptions) *Server {
	l := o.Logger
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, log: l.With(telemetry.KeyComponent, "api"), mux: http.NewServeMux()}
	s.routes()
	return s
}

func (s *Server) routes() {
	allow := map[string]string{}
	open := func(method, path string, h http.HandlerFunc) {
		if also := allow[path]; also != "" {
			allow[path] = also + ", " + method
		} else {
			allow[path] = method
		}
		s.mux.HandleFunc(method+" "+path, h)
	}
	member := func(method, path string, h http.HandlerFunc) { open(method, path, authenticated(h)) }

	open("GET", "/healthz", s.health)
	gather := prometheus.Gatherers{newStatusMetrics(s.o.Node)}
	if s.o.Metrics != nil {
		gather = append(gather, s.o.Metrics)
	}
	open("GET", "/metrics", telemetry.MetricsHandler(gather).ServeHTTP)
	member("GET", "/v1/status", s.status)
	member("GET", "/v1/events", s.events)
	member("GET", "/v1/why", s.why)
	member("POST", "/v1/audit", s.auditNow)
	member("GET", "/v1/log", s.logDump)
	n := s.o.Node
	member("POST", "/v1/init", post(s, "init asked", initTimeout, n.Init))
	member("POST", "/v1/switchover", post(s, "switchover asked", switchTimeout, func(ctx context.Context, r SwitchoverRequest) (SwitchoverResult, error) {
		start := time.Now()
		err := n.Switchover(ctx, r.To)
		return SwitchoverResult{Took: Seconds(time.Since(start))}, err
	}))
	member("POST", copyPath, s.copyStream)
	member("POST", "/v1/members/add", post(s, "member add asked", switchTimeout, n.AddMember))
	member("POST", "/v1/members/remove", post(s, "member remove asked", switchTimeout, func(ctx context.Context, r RemoveRequest) (MembersResult, error) {
		return n.RemoveMember(ctx, r.Member, r.Force)
	}))
	member("POST", rolePath, post(s, "member role asked", switchTimeout, func(ctx context.Context, r RoleRequest) (MembersResult, error) {
		return n.ChangeRole(ctx, r.Member, r.Role)
	}))
	s.tokenRoutes(member)
	open("POST", joinPath, s.redeem)
	s.settingsRoutes(member)
	member("POST", restartPath, post(s, "member restart asked", switchTimeout, func(ctx context.Context, r RestartRequest) (RestartResult, error) {
		return RestartResult(r), n.RestartMember(ctx, r.Member)
	}))
	member("POST", rotatePath, post(s, "rotation of accounts asked", switchTimeout, n.RotateAccounts))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if m, ok := allow[r.URL.Path]; ok {
			w.Header().Set("Allow", m)
			e := BadRequest("wrong_method", fmt.Sprintf("%s takes %s, not %s", r.URL.Path, m, r.Method), "")
			e.Status = http.StatusMethodNotAllowed
			s.fail(w, r, e)
			return
		}
		s.fail(w, r, NotFound("no_such_route", "there is no "+r.URL.Path, "the node may be older than this program: compare 'phxsql version'"))
	})
}

// Handler returns the routes, for tests and for serving beside something else.
func (s *Server) Handler() http.Handler { return s.mux }

// Serve answers requests until ctx ends, then gives those that run a moment to
// finish. It closes l. It returns nil after ctx has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(&handshakes{log: s.log}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	if s.o.TLS != nil {
		l = tls.NewListener(l, s.o.TLS())
	}
	done := make(chan error, 1)
	go func() { done <- hs.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve admin api: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if hs.Shutdown(grace) != nil {
		_ = hs.Close()
	}
	_ = <-done // http.ErrServerClosed
	return nil
}

// authenticated lets only those through who proved that they hold the cluster's
// secret.
func authenticated(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			writeError(w, &Error{Status: http.StatusUnauthorized, Problem: Problem{
				"unauthenticated", "this route needs a certificate of the cluster",
				"use the phxsql command with --config, which makes one of the cluster's secret"}})
			return
		}
		h(w, r)
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	st, err := s.o.Node.Status(ctx)
	s.answer(w, r, st, err)
}

// health answers 200 while this node does what it is there for: a blank node
// waits, a follower follows, a master serves.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	st, err := s.o.Node.Status(ctx)
	h := Health{State: StateUnknown}
	if err == nil {
		for _, m := range st.Members {
			if m.ID == st.Self {
				h.State = m.State
			}
		}
	}
	h.OK = h.State == StateBlank || h.State == StateWitness || h.State == StateFollower || h.State == StateMaster
	code := http.StatusOK
	if !h.OK {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, h)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := toError(err)
	if !errors.Is(r.Context().Err(), context.Canceled) {
		s.log.Debug("request refused", telemetry.KeyClient, r.RemoteAddr, telemetry.KeyName, r.URL.Path,
			telemetry.KeyProblem, e.Name, telemetry.KeyReason, e.Reason)
	}
	writeError(w, e)
}

// errorBody is the answer to a request that failed.
type errorBody struct {
	Error *Error `json:"error"`
}

func writeError(w http.ResponseWriter, e *Error) { writeJSON(w, e.Status, errorBody{e}) }

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("api: encode answer: %v", err)) // our own types: cannot fail
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // an error here is a client that left
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("there is more after the object")
		}
	}
	if err != nil {
		return BadRequest("bad_request", fmt.Sprintf("read request: %v", err), "").Because(err)
	}
	return nil
}
