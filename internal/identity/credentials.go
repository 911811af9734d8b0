package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// protocol is what peers name in ALPN, so that a stray HTTPS client is refused
// in the handshake.
const protocol = "phxsql-peer"

// The life of a node's certificate. It is renewed by the first use after two thirds of
// it, so that one in use has at least a third of its life left, give or take what the
// clocks of two machines differ by.
const (
	// CertificateLifetime is how long a certificate lives if nothing else is said.
	CertificateLifetime = 90 * 24 * time.Hour
	// MinCertificateLifetime is the shortest life that can be asked for.
	MinCertificateLifetime = 15 * time.Second
	// MaxCertificateLifetime is the longest one.
	MaxCertificateLifetime = 10 * 365 * 24 * time.Hour
	// backdate is how far before its issue a certificate is valid: by so much may the
	// clock of the machine that issues it be ahead of another's. A clock that was set to
	// local time is off by less.
	backdate = 24 * time.Hour
)

// The authority's own certificate never leaves a node, so its life limits nothing
// (RFC 5280, 4.1.2.5, for the end).
var (
	authorityFrom  = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	authorityUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// ErrNoNodeID says that a certificate names no node.
var ErrNoNodeID = errors.New("certificate names no node")

// Terms are the conditions under which a node's certificates are issued.
type Terms struct {
	// Lifetime is how long each one lives; 0 is CertificateLifetime.
	Lifetime time.Duration
	// Now is the machine's clock; nil is time.Now.
	Now func() time.Time
}

// Credentials are what one node proves itself with and judges others by. The
// certificate is issued when it is first needed, and anew when it is needed after two
// thirds of its life: so no clock has to ring, a machine that slept for a year is no
// special case, and whoever holds a configuration made of them never shows an old one.
// Connections that stand are not touched. They are safe for concurrent use.
type Credentials struct {
	node  paxos.NodeID
	print string
	terms Terms
	ca    *x509.Certificate
	caKey ed25519.PrivateKey
	roots *x509.CertPool

	mu   sync.Mutex
	cert *tls.Certificate // with its Leaf; replaced, never changed
}

// Credentials are those of a node whose certificates live for CertificateLifetime.
func (s *Secret) Credentials(node paxos.NodeID) (*Credentials, error) {
	return s.CredentialsUnder(node, Terms{})
}

// CredentialsUnder are those of a node under terms. The keys of its certificates live
// in memory only.
func (s *Secret) CredentialsUnder(node paxos.NodeID, terms Terms) (*Credentials, error) {
	if node == 0 {
		return nil, errors.New("issue certificate: node id 0 names nobody")
	}
	if terms.Lifetime == 0 {
		terms.Lifetime = CertificateLifetime
	}
	if terms.Lifetime < MinCertificateLifetime || terms.Lifetime > MaxCertificateLifetime {
		return nil, fmt.Errorf("issue certificate: it cannot live for %v, only for %v to %v", terms.Lifetime, MinCertificateLifetime, MaxCertificateLifetime)
	}
	if terms.Now == nil {
		terms.Now = time.Now
	}
	ca, caKey, err := s.authority()
	if err != nil {
		return nil, err
	}
	c := &Credentials{node: node, print: s.Fingerprint(), terms: terms, ca: ca, caKey: caKey, roots: x509.NewCertPool()}
	c.roots.AddCert(ca)
	_, err = c.certificate()
	return c, err
}

// certificate returns the present certificate, or a new one if that is due.
func (c *Credentials) certificate() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.terms.Now()
	if c.cert != nil && fresh(c.cert.Leaf, now) {
		return c.cert, nil
	}
	cert, err := c.issue(now)
	if err != nil {
		return nil, err
	}
	c.cert = cert
	return cert, nil
}

// fresh reports that a certificate need not be renewed. One from before the clock was
// set back by more than the backdate is as bad as an old one: others refuse both.
func fresh(leaf *x509.Certificate, now time.Time) bool {
	life := leaf.NotAfter.Sub(leaf.NotBefore) - backdate
	return !now.Before(leaf.NotBefore) && now.Before(leaf.NotAfter.Add(-life/3))
}

// issue makes a certificate with a key of its own.
func (c *Credentials) issue(now time.Time) (*tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate node key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "phxsql node " + strconv.FormatUint(uint64(c.node), 10)},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(c.terms.Lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{hostName(c.node)},
		URIs:        []*url.URL{nodeURI(c.node)},
	}, c.ca, pub, c.caKey)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of node %d: %w", c.node, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of node %d: %w", c.node, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Expires is when the certificate that the node shows now ends; zero if none can be
// issued.
func (c *Credentials) Expires() time.Time {
	cert, err := c.certificate()
	if err != nil {
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}

// authority makes the cluster's certificate authority: the same key and name on
// every node.
func (s *Secret) authority() (*x509.Certificate, ed25519.PrivateKey, error) {
	key := ed25519.NewKeyFromSeed(s.expand(labelCA))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: authorityName(s.Fingerprint())},
		NotBefore:    authorityFrom, NotAfter: authorityUntil,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate authority: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("parse certificate authority: %w", err)
	}
	return ca, key, nil
}

func authorityName(print string) string { return "phxsql cluster secret " + print }

// hostName is the name that a dialer demands of the node it wants to reach.
func hostName(node paxos.NodeID) string {
	return "node-" + strconv.FormatUint(uint64(node), 10) + ".phxsql.internal"
}

func nodeURI(node paxos.NodeID) *url.URL {
	return &url.URL{Scheme: "phxsql", Host: "node", Path: "/" + strconv.FormatUint(uint64(node), 10)}
}

// ClientConfig is for dialing the given peer: a server that is another node, or
// of another cluster, is refused in the handshake.
func (c *Credentials) ClientConfig(peer paxos.NodeID) *tls.Config {
	cfg := c.config()
	cfg.ServerName = hostName(peer)
	cfg.RootCAs = c.roots
	return cfg
}

// ServerConfig is for accepting any node of the cluster; Peer tells which it is.
func (c *Credentials) ServerConfig() *tls.Config {
	cfg := c.config()
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.ClientCAs = c.roots
	return cfg
}

func (c *Credentials) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Asked at each handshake, however old the configuration is by then.
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.certificate() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate() },
		Time:                 c.terms.Now,
		NextProtos:           []string{protocol},
		// Connections live long: resumption would save nothing, and full
		// records from the start cost fewer bytes and calls.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// Peer returns the node that the other side of a finished handshake proved to be.
func (c *Credentials) Peer(cs tls.ConnectionState) (paxos.NodeID, error) {
	if len(cs.VerifiedChains) == 0 || len(cs.PeerCertificates) == 0 {
		return 0, fmt.Errorf("read peer certificate: not verified: %w", ErrNoNodeID)
	}
	for _, u := range cs.PeerCertificates[0].URIs {
		if u.Scheme != "phxsql" || u.Host != "node" || len(u.Path) < 2 {
			continue
		}
		id, err := strconv.ParseUint(u.Path[1:], 10, 64)
		if err == nil && id != 0 {
			return paxos.NodeID(id), nil
		}
	}
	return 0, fmt.Errorf("read peer certificate: %w", ErrNoNodeID)
}

// Node is the node that the credentials were issued for.
func (c *Credentials) Node() paxos.NodeID { return c.node }

// Fingerprint is that of the secret behind the credentials.
func (c *Credentials) Fingerprint() string { return c.print }
