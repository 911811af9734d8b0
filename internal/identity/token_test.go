package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTokenThereAndBack(t *testing.T) {
	want := Token{Maker: 3, Secret: "s", Authority: testSecret(t, 'a').AuthorityKey()}
	got, err := ParseToken(want.String() + "\n")
	if err != nil || got.Maker != 3 || got.Secret != "s" || !got.Authority.Equal(want.Authority) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{"", "x", tokenPrefix, tokenPrefix + "e30", want.String()[:40], strings.Repeat("x", 2000)} {
		if _, err := ParseToken(text); !errors.Is(err, ErrBadToken) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// Who holds a token shows it to nodes of its cluster only.
func TestTokenIsShownToItsClusterOnly(t *testing.T) {
	token := Token{Maker: 1, Secret: "s", Authority: testSecret(t, 'a').AuthorityKey()}
	judge := func(fill byte) error {
		leaf := testCredentials(t, fill, 2).cert.Leaf
		return token.ClientConfig().VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	}
	if err := judge('a'); err != nil {
		t.Errorf("its own cluster: %v", err)
	}
	if err := judge('b'); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("another cluster: %v", err)
	}
	if token.ClientConfig().VerifyConnection(tls.ConnectionState{}) == nil {
		t.Error("a server without a certificate is believed")
	}
	old := underTerms(t, 2, Terms{Now: func() time.Time { return time.Now().Add(-365 * 24 * time.Hour) }}).cert.Leaf
	var invalid x509.CertificateInvalidError
	err := token.ClientConfig().VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{old}})
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("a certificate of last year: %v", err)
	}
}

func TestStoredSecretIsTheSame(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	made, err := CreateSecret(a)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", MinSecret)
	if err := StoreSecret(b, text); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadSecret(b); err != nil || s.Fingerprint() == made.Fingerprint() || s.Fingerprint() != testSecret(t, 'x').Fingerprint() {
		t.Errorf("the stored secret is another one: %v", err)
	}
	if err := StoreSecret(a, text); err == nil {
		t.Error("a secret was overwritten")
	}
	if err := StoreSecret(filepath.Join(dir, "c"), "short"); !errors.Is(err, ErrSecretSize) {
		t.Errorf("a short secret: %v", err)
	}
}
