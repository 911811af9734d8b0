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
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// protocol is what peers name in ALPN, so that a stray HTTPS client is refused
// in the handshake.
const protocol = "phxsql-peer"

// Certificates are valid for as long as X.509 can say (RFC 5280, 4.1.2.5).
var (
	notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// ErrNoNodeID says that a certificate names no node.
var ErrNoNodeID = errors.New("certificate names no node")

// Credentials are what one node proves itself with and judges others by. They
// are safe for concurrent use.
type Credentials struct {
	node  paxos.NodeID
	print string
	cert  tls.Certificate
	roots *x509.CertPool
}

// Credentials issues a certificate for the node with a fresh key that lives in
// memory only.
func (s *Secret) Credentials(node paxos.NodeID) (*Credentials, error) {
	if node == 0 {
		return nil, errors.New("issue certificate: node id 0 names nobody")
	}
	ca, caKey, err := s.authority()
	if err != nil {
		return nil, err
	}
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
		Subject:      pkix.Name{CommonName: "phxsql node " + strconv.FormatUint(uint64(node), 10)},
		NotBefore:    notBefore, NotAfter: notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{hostName(node)},
		URIs:        []*url.URL{nodeURI(node)},
	}, ca, pub, caKey)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of node %d: %w", node, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &Credentials{
		node: node, print: s.Fingerprint(), roots: roots,
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}, nil
}

// authority makes the cluster's certificate authority: the same key and name on
// every node.
func (s *Secret) authority() (*x509.Certificate, ed25519.PrivateKey, error) {
	key := ed25519.NewKeyFromSeed(s.expand(labelCA))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: authorityName(s.Fingerprint())},
		NotBefore:    notBefore, NotAfter: notAfter,
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
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{c.cert},
		NextProtos:   []string{protocol},
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
