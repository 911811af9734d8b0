package api

import (
	"context"
	"net"

	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// AddRequest admits a new node to the cluster.
type AddRequest struct {
	ID   paxos.NodeID `json:"id"`
	Peer string       `json:"peer"` // host:port
	Name string       `json:"name,omitempty"`
	// Role is what it will be when it has caught up: voter, witness or learner.
	Role string `json:"role"`
	// Replace is the name or id of the member that leaves in the moment when the new
	// one gets its role.
	Replace string `json:"replace,omitempty"`
}

func (r *AddRequest) check() error {
	_, port, err := net.SplitHostPort(r.Peer)
	switch {
	case r.ID == 0:
		return BadRequest("bad_member", "the new member has no id", "ids are numbers from 1, and never used again")
	case err != nil || port == "":
		return BadRequest("bad_member", "the address of the new member is not host:port", "give the address of its peer port (listen.peer)")
	}
	return nil
}

func (r *AddRequest) note() []any {
	return []any{telemetry.KeyMember, uint64(r.ID), telemetry.KeyAddr, r.Peer}
}

// RemoveRequest removes a member.
type RemoveRequest struct {
	Member string `json:"member"` // name or id
	// Force allows it even if those that are up are no majority of what is left.
	Force bool `json:"force_lose_majority,omitempty"`
}

func (r *RemoveRequest) check() error { return named(r.Member) }
func (r *RemoveRequest) note() []any  { return []any{telemetry.KeyName, r.Member} }

// RoleRequest changes what a member with data does.
type RoleRequest struct {
	Member string `json:"member"` // name or id
	Role   string `json:"role"`   // voter or learner
}

func (r *RoleRequest) check() error { return named(r.Member) }
func (r *RoleRequest) note() []any {
	return []any{telemetry.KeyName, r.Member, telemetry.KeyState, r.Role}
}

// Member is a member as the log names it.
type Member struct {
	ID   paxos.NodeID `json:"id"`
	Role string       `json:"role"`
	Peer string       `json:"peer"`
	Name string       `json:"name"`
}

// MembersResult is the membership after a change.
type MembersResult struct {
	Cluster string   `json:"cluster"`
	Members []Member `json:"members"`
}

// named refuses a request that names no member.
func named(member string) error {
	if member == "" {
		return BadRequest("bad_member", "no member is named", "phxsql member list shows them")
	}
	return nil
}

// ChangeRole makes a learner a voter, or a voter a learner.
func (c *Client) ChangeRole(ctx context.Context, req RoleRequest) (MembersResult, error) {
	var res MembersResult
	err := c.do(ctx, "POST", rolePath, nil, req, &res)
	return res, err
}

// AddMember admits a node.
func (c *Client) AddMember(ctx context.Context, req AddRequest) (MembersResult, error) {
	var res MembersResult
	err := c.do(ctx, "POST", "/v1/members/add", nil, req, &res)
	return res, err
}

// RemoveMember removes a member.
func (c *Client) RemoveMember(ctx context.Context, req RemoveRequest) (MembersResult, error) {
	var res MembersResult
	err := c.do(ctx, "POST", "/v1/members/remove", nil, req, &res)
	return res, err
}

const rolePath = "/v1/members/role"
