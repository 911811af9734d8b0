package api

import (
	"context"
	"net"

	"github.com/phxsql/phxsql/paxos"
)

// Node is what the server asks. Its methods are called from many goroutines.
// The errors that they return choose the answer: see Error.
type Node interface {
	// Status returns the node's view of the cluster. It does not wait for
	// others, and answers on a blank node too.
	Status(ctx context.Context) (Status, error)
	// Init makes a cluster of blank nodes, this one among them. It returns when
	// the cluster serves and the account is made. A node that belongs to a
	// cluster refuses.
	Init(ctx context.Context, req InitRequest) (InitResult, error)
	// Switchover makes the member whose name or id is given the master ("" lets
	// the cluster choose) and returns when it serves. It may be asked of any
	// member. Asking for the present master is a success.
	Switchover(ctx context.Context, to string) error
	// AddMember admits a node that is up and new, and returns when it is a learner. It
	// gets the data and its role by itself. It may be asked of any member, and again.
	AddMember(ctx context.Context, req AddRequest) (MembersResult, error)
	// RemoveMember removes the member whose name or id is given, after another one has
	// become master if it was. force allows a membership that has no majority up.
	RemoveMember(ctx context.Context, who string, force bool) (MembersResult, error)
	// ChangeRole makes a learner a voter, or a voter a learner.
	ChangeRole(ctx context.Context, member, role string) (MembersResult, error)
	// RotateAccounts gives the agents' accounts new passwords on all members, and
	// returns when those that are up have them. It may be asked of any member.
	RotateAccounts(ctx context.Context, req RotateRequest) (RotateResult, error)
	// RestartMember has a member that is not the master stop in good order and start
	// again, if a majority goes on without it. It returns when the member has agreed.
	// It may be asked of any member.
	RestartMember(ctx context.Context, who string) error
	// CreateToken makes a token with which one node may join, once.
	CreateToken(ctx context.Context, req TokenRequest) (TokenResult, error)
	// Tokens returns the tokens that this node knows of, the oldest first.
	Tokens(ctx context.Context) (TokenList, error)
	// RevokeToken makes a token void. It may be asked of any member.
	RevokeToken(ctx context.Context, req RevokeRequest) (TokenInfo, error)
	// Redeem exchanges a token for the cluster's secret.
	Redeem(ctx context.Context, token string) (RedeemResult, error)
	// Settings returns the settings as this node knows them.
	Settings(ctx context.Context) (SettingsResult, error)
	// SettingsHistory returns their newest changes, oldest first.
	SettingsHistory(ctx context.Context) (SettingsHistory, error)
	// ChangeSettings changes settings of the whole cluster and returns when the
	// change is chosen. It may be asked of any member.
	ChangeSettings(ctx context.Context, req SettingsRequest) (SettingsResult, error)
	// CopyStream returns a connection to the node's server, for another member that
	// copies its data. The caller closes it.
	CopyStream(ctx context.Context) (net.Conn, error)
	// LogDump calls f for each chosen entry from one instance to another, both
	// included, ascending. From 0 is the oldest kept, to 0 the newest chosen
	// when it starts. It ends with f's error if f returns one.
	LogDump(ctx context.Context, from, to paxos.Instance, f func(LogEntry) error) error
}
