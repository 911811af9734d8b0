package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/phxsql/phxsql/internal/identity"
)

// protocols are what both sides name in ALPN: HTTP/1.1, so that other clients
// can read /healthz and /metrics.
var protocols = []string{"http/1.1"}

// ServerTLS is for serving the admin API. A client without a certificate gets as
// far as /healthz and /metrics; one with a certificate of another cluster is
// refused in the handshake.
func ServerTLS(c *identity.Credentials) *tls.Config {
	cfg := c.ServerConfig().Clone()
	cfg.NextProtos = protocols
	cfg.ClientAuth = tls.VerifyClientCertIfGiven
	return cfg
}

// ClientTLS is for asking any member of the cluster: a server that does not hold
// the cluster's secret is refused in the handshake.
func ClientTLS(c *identity.Credentials) *tls.Config {
	cfg := c.ClientConfig(c.Node()).Clone()
	cfg.NextProtos = protocols
	roots := cfg.RootCAs
	// The address says nothing about which node answers, so the name in the
	// certificate cannot be demanded; that it is a node of this cluster can.
	cfg.ServerName = ""
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("verify server: it has no certificate")
		}
		leaf := cs.PeerCertificates[0]
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: cfg.Time(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			return fmt.Errorf("verify server: %w", err)
		}
		return nil
	}
	return cfg
}
