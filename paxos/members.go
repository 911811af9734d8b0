package paxos

import (
	"encoding/json"
	"fmt"
	"sort"
)

// Role says what a member does.
type Role uint8

// The roles of members.
const (
	Voter   Role = 1 // votes, may lead
	Witness Role = 2 // votes and keeps the log, never leads
	Learner Role = 3 // receives the log, does not vote
)

// Member is one member of a group.
type Member struct {
	ID   NodeID `json:"id"`
	Role Role   `json:"role"`
	// Log is the identity of the member's log, drawn when the log was created.
	// A member that comes with another log has lost what it promised.
	Log string `json:"log,omitempty"`
	// Addr is where the member's peers reach it; a new one is a new membership.
	Addr string `json:"addr,omitempty"`
	// Name is for people.
	Name string `json:"name,omitempty"`
}

// Votes reports whether the member counts for quorums.
func (m Member) Votes() bool { return m.Role == Voter || m.Role == Witness }

// Members is the membership of a group: a value in its log. The zero Members is
// that of a node that has not learned any.
type Members struct {
	// Cluster is the identity that all members share.
	Cluster string   `json:"cluster"`
	List    []Member `json:"members"` // ascending by ID
}

// Find returns the member with the given id.
func (ms Members) Find(id NodeID) (Member, bool) {
	i := sort.Search(len(ms.List), func(i int) bool { return ms.List[i].ID >= id })
	if i < len(ms.List) && ms.List[i].ID == id {
		return ms.List[i], true
	}
	return Member{}, false
}

// Blank reports whether this is the membership of a node that knows none.
func (ms Members) Blank() bool { return len(ms.List) == 0 }

// Quorum is the number of voters that make a majority.
func (ms Members) Quorum() int {
	n := 0
	for _, m := range ms.List {
		if m.Votes() {
			n++
		}
	}
	return n/2 + 1
}

// Encode returns the membership as the data of an entry (JSON: it is rare, and
// people read it in log dumps).
func (ms Members) Encode() []byte {
	b, err := json.Marshal(ms)
	if err != nil {
		panic(fmt.Sprintf("paxos: encode membership: %v", err)) // plain strings and numbers: cannot fail
	}
	return b
}

// DecodeMembers reads a membership and checks it.
func DecodeMembers(b []byte) (Members, error) {
	var ms Members
	if err := json.Unmarshal(b, &ms); err != nil {
		return Members{}, fmt.Errorf("decode membership: %v: %w", err, ErrMalformed)
	}
	return ms, ms.Check()
}

// MaxMembers limits the size of a group.
const MaxMembers = 64

// Check returns an error unless the members are ascending by id, known in role,
// not too many, and at least one of them may lead.
func (ms Members) Check() error {
	voters := 0
	for i, m := range ms.List {
		switch {
		case m.ID == 0:
			return fmt.Errorf("check membership: member id 0: %w", ErrMalformed)
		case i > 0 && ms.List[i-1].ID >= m.ID:
			return fmt.Errorf("check membership: members not ascending by id: %w", ErrMalformed)
		case m.Role < Voter || m.Role > Learner:
			return fmt.Errorf("check membership: role %d: %w", m.Role, ErrMalformed)
		}
		if m.Role == Voter {
			voters++
		}
	}
	if voters == 0 {
		return fmt.Errorf("check membership: no voter: %w", ErrMalformed)
	}
	if len(ms.List) > MaxMembers {
		return fmt.Errorf("check membership: %d members, limit %d: %w", len(ms.List), MaxMembers, ErrMalformed)
	}
	return nil
}
