package api

import (
	"context"
	"net/http"
	"time"

	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// auditTimeout is how long an audit that was asked for may take to answer. It goes on
// after that; phxsql why tells its outcome.
const auditTimeout = 30 * time.Minute

// Auditor is a node that compares the rows and accounts of all members.
type Auditor interface {
	// AuditNow goes over all tables once and returns what was found. It may be asked of
	// any member.
	AuditNow(ctx context.Context) (AuditResult, error)
}

// AuditResult is what one pass over all tables has found.
type AuditResult struct {
	Tables int    `json:"tables"`
	Rows   uint64 `json:"rows"` // read on the master
	// Nodes took part.
	Nodes []paxos.NodeID `json:"nodes"`
	// Skipped are tables, and accounts and the like of members, that cannot be compared,
	// with the reason.
	Skipped []string `json:"skipped,omitempty"`
	// Advice names grants on routines and columns and partial revokes that differ; nobody
	// leaves service for them.
	Advice   []string          `json:"advice,omitempty"`
	Diverged []AuditDivergence `json:"diverged,omitempty"`
	Took     Seconds           `json:"took_seconds"`
}

// AdviceHint is what to do about grants that differ and that nobody is judged for.
const AdviceHint = "GRANT it on the master, and REVOKE it again if the account is not to have it: then all members agree"

// AuditDivergence names a member whose rows or accounts differ.
type AuditDivergence struct {
	Node paxos.NodeID `json:"node"`
	// Tie says that no majority could tell which rows are right: the master's count.
	Tie bool `json:"tie,omitempty"`
	// Undecided says that members which were away could still tell: nobody acts on it yet.
	Undecided bool     `json:"undecided,omitempty"`
	Tables    []string `json:"tables"`
	// Where is the first place, in the first of the tables.
	Where string `json:"where"`
}

func (s *Server) auditNow(w http.ResponseWriter, r *http.Request) {
	a, ok := s.o.Node.(Auditor)
	if !ok {
		s.fail(w, r, NotFound("no_audit", "this node has no audit", ""))
		return
	}
	s.log.Info("audit asked", telemetry.KeyClient, r.RemoteAddr)
	ctx, cancel := context.WithTimeout(r.Context(), auditTimeout)
	defer cancel()
	res, err := a.AuditNow(ctx)
	s.answer(w, r, res, err)
}

// AuditNow compares the rows and accounts of all members once.
func (c *Client) AuditNow(ctx context.Context) (AuditResult, error) {
	var res AuditResult
	err := c.do(ctx, "POST", "/v1/audit", nil, struct{}{}, &res)
	return res, err
}
