package transport

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// The reasons for which two nodes do not talk. Admit returns an error that wraps
// one of them, and both sides then show it.
var (
	// ErrWrongSecret says that the two nodes hold different cluster secrets.
	ErrWrongSecret = errors.New("another cluster secret")
	// ErrCertificateExpired says that a node's certificate is not valid at this time, by
	// the clock of the node that judges it.
	ErrCertificateExpired = errors.New("certificate is not valid at this time")
	// ErrWrongNode says that another node than the wanted one answers at an address.
	ErrWrongNode = errors.New("another node answers")
	// ErrWrongCluster says that the other node belongs to another cluster.
	ErrWrongCluster = errors.New("another cluster")
	// ErrWrongLog says that a member came with another log than the one it
	// joined with: it has lost what it promised.
	ErrWrongLog = errors.New("another log than the member joined with")
	// ErrDuplicateNode says that two running machines use one node id.
	ErrDuplicateNode = errors.New("node id used by two machines")
	// ErrNotMember says that the cluster knows no such node.
	ErrNotMember = errors.New("not a member")
	// ErrVersion says that the two nodes have no version of the protocol in common.
	ErrVersion = errors.New("incompatible protocol version")
	// ErrSilent says that a connection was open but nothing came through it.
	ErrSilent = errors.New("peer went silent")
	// ErrRefused is any other refusal; its text says more.
	ErrRefused = errors.New("refused")
)

var (
	// ErrClosed says that the transport was closed.
	ErrClosed = errors.New("transport closed")
	// ErrUnknownPeer says that SetPeers did not name the node.
	ErrUnknownPeer = errors.New("unknown peer")
	// ErrNotConnected says that a call was never sent.
	ErrNotConnected = errors.New("not connected")
	// ErrConnectionLost says that the connection ended before a call was
	// answered: it may or may not have been carried out.
	ErrConnectionLost = errors.New("connection lost, outcome unknown")
	// ErrBusy says that a queue or a limit is full; nothing was sent.
	ErrBusy = errors.New("too much in flight")
	// ErrTooLarge says that a payload is above its limit; nothing was sent.
	ErrTooLarge = errors.New("payload too large")
	// ErrMalformed says that bytes from a peer are not a frame.
	ErrMalformed = errors.New("malformed frame")

	errReplaced = errors.New("replaced by a newer connection")
	errRemoved  = errors.New("peer removed or its address changed")
	errRejoined = errors.New("no longer admitted")
)

// reasons maps the names used on the wire and in status to errors.
var reasons = []struct {
	code string
	err  error
}{
	{"wrong_secret", ErrWrongSecret},
	{"certificate_expired", ErrCertificateExpired},
	{"wrong_node", ErrWrongNode},
	{"wrong_cluster", ErrWrongCluster},
	{"wrong_log", ErrWrongLog},
	{"duplicate_node", ErrDuplicateNode},
	{"not_member", ErrNotMember},
	{"version", ErrVersion},
	{"malformed", ErrMalformed},
	{"busy", ErrBusy},
	{"silent", ErrSilent},
	{"refused", ErrRefused},
}

// Reason returns the short stable name of an error of this package, for status
// output; "unreachable" for what has none, and "" for nil.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.code
		}
	}
	return "unreachable"
}

// RefusedError is the other side's refusal of a connection. It wraps the error
// that its code names.
type RefusedError struct {
	By   paxos.NodeID // 0 if not known
	Code string
	Text string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused by node %d: %s", e.By, e.Text)
}

// Unwrap returns the error that the code names.
func (e *RefusedError) Unwrap() error {
	for _, r := range reasons {
		if r.code == e.Code {
			return r.err
		}
	}
	return ErrRefused
}

// CallError is the error that a call's handler returned on the other side.
type CallError struct {
	Peer   paxos.NodeID
	Method string
	Text   string
}

func (e *CallError) Error() string {
	return fmt.Sprintf("call %s on node %d: %s", e.Method, e.Peer, e.Text)
}

// explain turns an error of an introduction into one that names the cause and what
// to do about it. Other errors stay as they are.
func explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		theirs := "unknown"
		if unknown.Cert != nil {
			theirs = unknown.Cert.Issuer.CommonName
		}
		return fmt.Errorf("verify peer: its certificate comes from %q (use the same secret file on all nodes): %w", theirs, ErrWrongSecret)
	case errors.As(err, &host):
		theirs := "unknown"
		if host.Certificate != nil {
			theirs = host.Certificate.Subject.CommonName
		}
		return fmt.Errorf("verify peer: %q answers (check the addresses of the members): %w", theirs, ErrWrongNode)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("verify peer: %s (check the clocks of both machines; nodes renew their certificates by themselves): %w", validity(invalid), ErrCertificateExpired)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("introduction took too long: %w", ErrSilent)
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(err.Error(), "expired certificate"):
		return fmt.Errorf("handshake: by the peer's clock this node's certificate is not valid now (check the clocks of both machines): %w", ErrCertificateExpired)
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(err.Error(), "certificate"):
		return fmt.Errorf("handshake: the peer does not accept this node's certificate (compare the secret files, the clocks, and the node id expected at this address): %w", ErrWrongSecret)
	}
	return err
}

// validity says when a certificate is valid, and what time it is thought to be.
func validity(e x509.CertificateInvalidError) string {
	if e.Cert == nil {
		return "its certificate is not valid now"
	}
	form := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	return fmt.Sprintf("the certificate of %q is valid from %s to %s; here %s",
		e.Cert.Subject.CommonName, form(e.Cert.NotBefore), form(e.Cert.NotAfter), e.Detail)
}
