package api

import (
	"fmt"
	"net"
	"regexp"

	"github.com/phxsql/phxsql/internal/telemetry"
	"github.com/phxsql/phxsql/paxos"
)

// userForm is what the name of a client account may look like: MySQL's limit is
// 32 characters, and mysql.* and phxsql_* belong to the servers themselves.
var userForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// minPassword is the least length of a client account's password.
const minPassword = 8

// check says what is wrong with the form of the request.
func (r *InitRequest) check() error {
	if len(r.Members) == 0 {
		return BadRequest("no_members", "the list of members is empty", "name all members of the new cluster: --members 1=host:port,2=host:port,3=host:port")
	}
	if len(r.Members) > paxos.MaxMembers {
		return BadRequest("too_many_members", fmt.Sprintf("%d members are named, the limit is %d", len(r.Members), paxos.MaxMembers), "")
	}
	ids, peers := map[paxos.NodeID]bool{}, map[string]bool{}
	for _, m := range r.Members {
		_, port, err := net.SplitHostPort(m.Peer)
		switch {
		case m.ID == 0:
			return BadRequest("bad_member", "a member has no id", "ids are numbers from 1")
		case ids[m.ID]:
			return BadRequest("bad_member", fmt.Sprintf("member %d is named twice", m.ID), "")
		case err != nil || port == "":
			return BadRequest("bad_member", fmt.Sprintf("the address %q of member %d is not host:port", m.Peer, m.ID), "give the address of its peer port (listen.peer)")
		case peers[m.Peer]:
			return BadRequest("bad_member", fmt.Sprintf("two members have the address %s", m.Peer), "")
		}
		ids[m.ID], peers[m.Peer] = true, true
	}
	return r.checkUser()
}

func (r *InitRequest) note() []any { return []any{telemetry.KeyCount, len(r.Members)} }

func (r *InitRequest) checkUser() error {
	switch {
	case r.User == "" && r.Password != "":
		return BadRequest("bad_user", "a password without a user", "name the account: --user NAME")
	case r.User == "":
		return nil
	case !userForm.MatchString(r.User):
		return BadRequest("bad_user", fmt.Sprintf("%q cannot be the name of a client account", r.User),
			"use at most 32 letters, digits, dots, dashes and underscores, with a letter first")
	case reserved(r.User):
		return BadRequest("bad_user", fmt.Sprintf("%q belongs to the server itself", r.User), "choose another name, such as app")
	case r.Password != "" && len(r.Password) < minPassword:
		return BadRequest("bad_password", fmt.Sprintf("the password has %d characters, at least %d are needed", len(r.Password), minPassword),
			"leave it out to have one drawn")
	}
	return nil
}

func reserved(user string) bool {
	return user == "root" || len(user) >= 6 && (user[:6] == "mysql." || user[:6] == "phxsql")
}
