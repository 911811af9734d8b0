package main

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

// startOursTLS is ours as it runs in production: TLS 1.3 between the nodes.
func startOursTLS(s seat) (propose, error) {
	c, err := newCredentials(paxos.NodeID(s.index + 1))
	if err != nil {
		return nil, err
	}
	return ours(s, c)
}

// credentials are certificates of an authority whose key everybody knows: good
// for measuring only.
type credentials struct {
	cert tls.Certificate
	pool *x509.CertPool
}

func newCredentials(id paxos.NodeID) (*credentials, error) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(int64(id) + 1), Subject: pkix.Name{CommonName: fmt.Sprint(id)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(nil, leaf, ca, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	root, err := x509.CreateCertificate(nil, ca, ca, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	parsed, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, fmt.Errorf("parse authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &credentials{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool: pool}, nil
}

func (c *credentials) ClientConfig(paxos.NodeID) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.cert}, RootCAs: c.pool, ServerName: "127.0.0.1"}
}

func (c *credentials) ServerConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.cert}, ClientCAs: c.pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

func (c *credentials) Peer(cs tls.ConnectionState) (paxos.NodeID, error) {
	if len(cs.PeerCertificates) == 0 {
		return 0, errors.New("no certificate")
	}
	var id paxos.NodeID
	_, err := fmt.Sscan(cs.PeerCertificates[0].Subject.CommonName, &id)
	return id, err
}
