package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Token lets one node into the cluster. It names the cluster by the public key of its
// authority, so that it is shown to nobody else.
type Token struct {
	Maker     uint64            `json:"n"` // the node that made it
	Secret    string            `json:"s"`
	Authority ed25519.PublicKey `json:"a"`
	// Role is what the node shall be; empty leaves it open. Who holds the token could
	// be anything.
	Role string `json:"r,omitempty"`
}

// tokenPrefix is in front of every token, so that people and scanners know what it is.
const tokenPrefix = "phxsql-join-"

// maxToken bounds what is read as a token.
const maxToken = 1024

// ErrBadToken says that a text is not a token.
var ErrBadToken = errors.New("this is not a join token")

// ErrOtherCluster says that a token is of another cluster than the node that it would be
// shown to.
var ErrOtherCluster = errors.New("this node is not of the token's cluster")

// String returns the token as it is typed.
func (t Token) String() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(fmt.Sprintf("identity: encode token: %v", err)) // plain values: cannot fail
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads a token.
func ParseToken(text string) (Token, error) {
	var t Token
	body, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok || len(text) > maxToken {
		return t, fmt.Errorf("read token: %w", ErrBadToken)
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil || json.Unmarshal(b, &t) != nil || len(t.Authority) != ed25519.PublicKeySize || t.Secret == "" || t.Maker == 0 {
		return t, fmt.Errorf("read token: %w", ErrBadToken)
	}
	return t, nil
}

// AuthorityKey is the public key of the cluster's certificate authority.
func (s *Secret) AuthorityKey() ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(s.expand(labelCA)).Public().(ed25519.PublicKey)
}

// ClientConfig is for a node that has nothing but a token: it speaks only to nodes of
// the token's cluster, and proves nothing itself.
func (t Token) ClientConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The authority's certificate is not known, only its key: see below.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("verify server: it has no certificate")
			}
			leaf := cs.PeerCertificates[0]
			if leaf.SignatureAlgorithm != x509.PureEd25519 || !ed25519.Verify(t.Authority, leaf.RawTBSCertificate, leaf.Signature) {
				return fmt.Errorf("verify server: %q, certified by %q: %w", leaf.Subject.CommonName, leaf.Issuer.CommonName, ErrOtherCluster)
			}
			return validAt(leaf, time.Now())
		},
	}
}

// validAt returns an error unless a certificate is valid at a time.
func validAt(leaf *x509.Certificate, now time.Time) error {
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("verify server: %w", x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired,
			Detail: fmt.Sprintf("it is valid from %s to %s, and here it is %s",
				leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))})
	}
	return nil
}

// StoreSecret writes a secret that was received to a file that must not exist (mode
// 0600, synced with its folder).
func StoreSecret(path, text string) error {
	if _, err := NewSecret([]byte(text)); err != nil {
		return err
	}
	return writeNew(path, []byte(text))
}

// HasSecret reports whether there is a secret file.
func HasSecret(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
