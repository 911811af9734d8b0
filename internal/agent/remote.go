package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/phxsql/phxsql/internal/api"
	"github.com/phxsql/phxsql/internal/transport"
	"github.com/phxsql/phxsql/paxos"
)

// The calls between agents. Payloads are JSON: they are small and rare.
const (
	callJoin       = "join"        // joinRequest -> joinAnswer: get ready to be a member
	callApplied    = "applied"     // appliedRequest: answer when the server has executed it
	callSwitchover = "switchover"  // switchoverRequest: to the master
	callCreateUser = "create_user" // userRequest: to the master, for the first account
	callOffer      = "copy_offer"  // nothing -> offer: would this node give a copy of its data?
	callLocate     = "locate"      // locateRequest -> location: where does the log go on for a server?
)

type joinRequest struct {
	Members []api.InitMember `json:"members"`
	// Cluster, Role and Replace invite into a cluster that exists.
	Cluster string       `json:"cluster,omitempty"`
	Role    string       `json:"role,omitempty"`
	Replace paxos.NodeID `json:"replace,omitempty"`
}

type joinAnswer struct {
	Name    string `json:"name"`
	Log     string `json:"log"`
	Cluster string `json:"cluster"` // not empty: it belongs to one already
	Engine  string `json:"engine"`
	State   string `json:"state"`
}

type appliedRequest struct {
	Through paxos.Instance `json:"through"`
}

type switchoverRequest struct {
	To paxos.NodeID `json:"to"`
}

type userRequest struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// refusal carries an api.Error over a call, name and hint included.
type refusal struct {
	Refused *api.Error `json:"refused,omitempty"`
	Status  int        `json:"status,omitempty"`
}

// call asks another node, or this one when to names it.
func (a *Agent) call(ctx context.Context, to paxos.NodeID, method string, req, res any) error {
	payload, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode call %s: %w", method, err)
	}
	var b []byte
	if to == a.cfg.Node.ID {
		b, err = a.calls[method](ctx, to, payload)
	} else {
		b, err = a.transport.Call(ctx, to, method, payload)
	}
	if err != nil {
		return err
	}
	var ref refusal
	if json.Unmarshal(b, &ref) == nil && ref.Refused != nil {
		ref.Refused.Status = ref.Status
		return ref.Refused
	}
	if res == nil {
		return nil
	}
	if err := json.Unmarshal(b, res); err != nil {
		return fmt.Errorf("decode answer of %s: %w", method, err)
	}
	return nil
}

// handle registers a method. A refusal with a name travels as an answer.
func handle[Req, Res any](a *Agent, method string, f func(ctx context.Context, from paxos.NodeID, req Req) (Res, error)) {
	h := func(ctx context.Context, from paxos.NodeID, payload []byte) ([]byte, error) {
		var req Req
		if err := json.Unmarshal(payload, &req); err != nil {
			return nil, fmt.Errorf("decode %s: %w", method, err)
		}
		res, err := f(ctx, from, req)
		var named *api.Error
		if errors.As(err, &named) {
			return json.Marshal(refusal{Refused: named, Status: named.Status})
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(res)
	}
	a.calls[method] = h
	a.transport.Handle(method, h)
}

type nothing struct{}

func (a *Agent) handleCalls() {
	a.calls = map[string]transport.CallHandler{}
	handle(a, callJoin, a.onJoin)
	handle(a, callApplied, a.onApplied)
	handle(a, callSwitchover, a.onSwitchover)
	handle(a, callCreateUser, a.onCreateUser)
	a.handleChanges()
	handle(a, callOffer, a.onOffer)
	handle(a, callLocate, a.onLocate)
	handle(a, callDistance, a.onDistance)
}

// onApplied answers when the local server has executed everything through an
// instance.
func (a *Agent) onApplied(ctx context.Context, _ paxos.NodeID, req appliedRequest) (nothing, error) {
	if err := a.journal.Wait(ctx, req.Through); err != nil {
		return nothing{}, err
	}
	return nothing{}, a.db.WaitExecuted(ctx, a.journal.Executed())
}

func (a *Agent) awaitApplied(ctx context.Context, to paxos.NodeID, through paxos.Instance) error {
	return a.call(ctx, to, callApplied, appliedRequest{through}, nil)
}

func (a *Agent) onSwitchover(ctx context.Context, _ paxos.NodeID, req switchoverRequest) (nothing, error) {
	return nothing{}, a.switchWithin(ctx, req.To)
}

func (a *Agent) onCreateUser(ctx context.Context, _ paxos.NodeID, req userRequest) (nothing, error) {
	if s := a.loop.last.Load(); s == nil || s.state() != api.StateMaster {
		return nothing{}, notMaster()
	}
	switch has, err := a.db.HasClients(ctx); {
	case err != nil:
		return nothing{}, err
	case has:
		return nothing{}, notBlank(a.group.Leader().Members.Cluster)
	}
	return nothing{}, a.db.CreateUser(ctx, req.Name, req.Password)
}

func notMaster() *api.Error {
	return api.Unavailable("not_master", "this node is not the master", "ask again when phxsql status shows a master")
}

// master returns the node whose gate is open, or zero.
func (a *Agent) master() paxos.NodeID {
	if s := a.loop.last.Load(); s != nil && s.state() == api.StateMaster {
		return a.cfg.Node.ID
	}
	now := time.Now()
	for _, m := range a.group.Leader().Members.List {
		if an, age, ok := a.peers.get(m.ID, now); ok && age < aliveFor && an.Member.Master {
			return m.ID
		}
	}
	return 0
}

// Switchover makes a member the master; it may be asked of any member.
func (a *Agent) Switchover(ctx context.Context, to string) error {
	target, err := a.findMember(to)
	if err != nil {
		return err
	}
	return untilLed(ctx, func() error {
		master := a.master() // as it said last: it may have died since
		switch {
		case master == 0 || !a.reaches(master):
			return api.Unavailable(noMaster, "no member takes writes now", "see the problems in phxsql status")
		case target == master:
			return nil
		}
		return unanswered(master, a.call(ctx, master, callSwitchover, switchoverRequest{target}, nil))
	})
}

// findMember finds a member by id or name; the empty string is nobody in
// particular.
func (a *Agent) findMember(to string) (paxos.NodeID, error) {
	if to == "" {
		return 0, nil
	}
	st, err := a.Status(context.Background())
	if err != nil {
		return 0, err
	}
	var found []paxos.NodeID
	for _, m := range st.Members {
		if fmt.Sprint(m.ID) == to {
			return m.ID, nil
		}
		if m.Name == to {
			found = append(found, m.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, api.NotFound("unknown_member", fmt.Sprintf("no member has the name or id %q", to), "phxsql status lists the members")
	}
	return 0, api.BadRequest("ambiguous_member", fmt.Sprintf("several members have the name %q", to), "name the member by its id")
}
