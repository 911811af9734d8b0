package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/phxsql/phxsql/paxos"
	"github.com/phxsql/phxsql/paxos/node"
	"github.com/phxsql/phxsql/samples/internal/run"
)

const (
	maxBody      = 1 << 20
	requestLimit = 5 * time.Second
)

// server answers HTTP on one node:
//
//	PUT /KEY       body: the value; 200 with the instance
//	PUT /KEY?if=V  the same if the key has the value V ("": none), else 412 with what it has
//	DELETE /KEY    200; ?if= likewise
//	GET /KEY       200 with the value, or 404; linearizable
//	GET /KEY?stale the same from this node's own state, which may be behind
//	GET /          status as JSON
//	GET /?snapshot this node's newest snapshot, for other nodes
//
// What only the leader can do is sent on to it with 307. 503 says that nothing was
// done, because nobody leads or too much is under way: try again. 504 says that the
// outcome of a change is unknown: look before trying again.
type server struct {
	node  *node.Node
	store *store
	http  map[paxos.NodeID]string // addresses of all nodes
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
	defer cancel()
	key := r.URL.Path[1:]
	switch {
	case key == "" && r.Method == http.MethodGet && r.URL.Query().Has("snapshot"):
		http.ServeFile(w, r, s.store.path)
	case key == "" && r.Method == http.MethodGet:
		s.status(ctx, w)
	case key == "":
		http.Error(w, "a key must be given", http.StatusBadRequest)
	case r.Method == http.MethodGet:
		s.get(ctx, w, r, key)
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		s.change(ctx, w, r, change{Key: key, Value: string(body), If: condition(r)})
	case r.Method == http.MethodDelete:
		s.change(ctx, w, r, change{Key: key, Delete: true, If: condition(r)})
	default:
		http.Error(w, "GET, PUT or DELETE", http.StatusMethodNotAllowed)
	}
}

func (s *server) get(ctx context.Context, w http.ResponseWriter, r *http.Request, key string) {
	if !r.URL.Query().Has("stale") {
		if err := s.node.Barrier(ctx, run.Group); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	v, ok := s.store.get(key)
	if !ok {
		http.Error(w, "no such key", http.StatusNotFound)
		return
	}
	io.WriteString(w, v) // an error is the client's
}

func (s *server) change(ctx context.Context, w http.ResponseWriter, r *http.Request, c change) {
	b, err := json.Marshal(c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	i, result, err := s.node.Propose(ctx, run.Group, b)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	was, code := result.(changed), http.StatusOK
	if !was.done {
		code = http.StatusPreconditionFailed
	}
	reply(w, code, map[string]any{"instance": i, "before": was.before})
}

// condition is the value of ?if=, nil where it is not given.
func condition(r *http.Request) *string {
	if q := r.URL.Query(); q.Has("if") {
		v := q.Get("if")
		return &v
	}
	return nil
}

// refuse sends the client to the leader, or says why not.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	elsewhere := errors.Is(err, node.ErrNotLeader) || errors.Is(err, node.ErrNoLease)
	if addr := s.http[s.node.Leader(run.Group)]; elsewhere && addr != "" && addr != r.Host {
		http.Redirect(w, r, "http://"+addr+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return
	}
	code := http.StatusServiceUnavailable
	if errors.Is(err, node.ErrUnknown) {
		code = http.StatusGatewayTimeout
	}
	http.Error(w, err.Error(), code)
}

func (s *server) status(ctx context.Context, w http.ResponseWriter) {
	st, err := s.node.Status(ctx, run.Group)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"leader": st.Leader, "leads": st.Leads, "lease": st.Lease.String(), "first": st.First, "chosen": st.Chosen, "applied": st.Applied,
		"lacking": st.Lacking, "restored": s.store.restores(),
	})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // an error is the client's
}
