package transport

import (
	"crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/identity"
	"github.com/phxsql/phxsql/paxos"
)

// skewed are credentials of a node whose clock can be set wrong.
func skewed(t *testing.T, id paxos.NodeID) (*identity.Credentials, *atomic.Int64) {
	t.Helper()
	s, err := identity.NewSecret([]byte(strings.Repeat("s", identity.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	var skew atomic.Int64
	c, err := s.CredentialsUnder(id, identity.Terms{Now: func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	return c, &skew
}

// A year goes by while two nodes are connected: the connections that stand stay, and
// new ones can be made. Then one's clock is set wrong: what stands stays, what is new
// is refused by both sides, with the reason and what to look at.
func TestCertificatesOfLiveConnections(t *testing.T) {
	checkLeaks(t)
	opt1, opt2 := options(t, 1), options(t, 2)
	cred1, skew1 := skewed(t, 1)
	cred2, skew2 := skewed(t, 2)
	opt1.Credentials, opt2.Credentials = cred1, cred2
	one, two := start(t, opt1), start(t, opt2)
	r := newRelay(t, two.addr)
	one.SetPeers([]Peer{{ID: 2, Addr: r.addr()}})
	up := func(s PeerStatus) bool { return s.Connected }
	waitPeer(t, one, 2, up)
	since := peerStatus(one, 2).Since

	year := int64(365 * 24 * time.Hour)
	skew1.Store(year)
	skew2.Store(year)
	one.Send(2, 0, accepts(1, 2, 1, 10))
	two.rec.messages(t, 1)
	if s := peerStatus(one, 2); !s.Connected || s.Since != since {
		t.Fatalf("the connection did not outlive its certificates: %+v", s)
	}
	r.cut()
	waitPeer(t, one, 2, func(s PeerStatus) bool { return s.Connected && s.Since != since })

	skew2.Store(2 * year)
	one.Send(2, 0, accepts(1, 2, 1, 10))
	two.rec.messages(t, 1)
	r.cut()
	waitReason(t, one, 2, "certificate_expired")
	s := peerStatus(one, 2)
	if !strings.Contains(s.LastError, "check the clocks") || !strings.Contains(s.LastError, "phxsql node 2") {
		t.Errorf("the dialer says only: %s", s.LastError)
	}
	two.SetPeers([]Peer{one.peer()})
	waitReason(t, two, 1, "certificate_expired")
	if err := peerStatus(two, 1).LastError; !strings.Contains(err, "check the clocks") {
		t.Errorf("the refused dialer says only: %s", err)
	}
	skew2.Store(year)
	waitPeer(t, one, 2, up)
	waitPeer(t, two, 1, up)
}

// The acceptor tells the dialer in its alert that the certificate is not valid now, and
// notes it itself.
func TestAnExpiredDialerIsRefusedWithTheReason(t *testing.T) {
	checkLeaks(t)
	opt1, opt2 := options(t, 1), options(t, 2)
	cred2, skew2 := skewed(t, 2)
	opt2.Credentials = blindTo{cred2}
	skew2.Store(int64(-365 * 24 * time.Hour))
	one, two := start(t, opt1), start(t, opt2)
	two.SetPeers([]Peer{one.peer()})
	waitReason(t, two, 1, "certificate_expired")
	eventually(t, "the refusal on the acceptor", func() bool {
		for _, r := range one.Status().Refused {
			if r.Reason == Reason(ErrCertificateExpired) && strings.Contains(r.Error, "phxsql node 2") && strings.Contains(r.Error, "check the clocks") {
				return true
			}
		}
		return false
	})
	if err := (&RefusedError{Code: "certificate_expired"}); !errors.Is(err, ErrCertificateExpired) {
		t.Error("the code does not come back as the error")
	}
}

// blindTo does not judge the other side, so that the other side's judgement is seen.
type blindTo struct{ *identity.Credentials }

func (b blindTo) ClientConfig(peer paxos.NodeID) *tls.Config {
	c := b.Credentials.ClientConfig(peer)
	c.InsecureSkipVerify = true
	return c
}

func (blindTo) Peer(tls.ConnectionState) (paxos.NodeID, error) { return 1, nil }
