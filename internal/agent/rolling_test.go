package agent

import (
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/api"
)

// A member that was let go is back when another process speaks under its id.
func TestIsBack(t *testing.T) {
	a := &Agent{peers: newPeers()}
	if a.isBack(2, "old") {
		t.Error("nothing was heard of it")
	}
	a.peers.put(2, announcement{Boot: "old", Member: api.MemberStatus{ID: 2}}, time.Now())
	if a.isBack(2, "old") {
		t.Error("it has not gone yet")
	}
	a.peers.put(2, announcement{Boot: "new", Member: api.MemberStatus{ID: 2}}, time.Now())
	if !a.isBack(2, "old") {
		t.Error("it is back")
	}
}

func TestRestartIsAskedOnce(t *testing.T) {
	var r rolling
	going := r.asked()
	r.ask()
	r.ask()
	<-going
	<-r.asked()
}
