package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phxsql/phxsql/paxos"
)

func testSecret(t testing.TB, fill byte) *Secret {
	t.Helper()
	s, err := NewSecret(bytes.Repeat([]byte{fill}, MinSecret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testCredentials(t testing.TB, fill byte, node paxos.NodeID) *Credentials {
	t.Helper()
	c, err := testSecret(t, fill).Credentials(node)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDeriveIsStableAndSeparated(t *testing.T) {
	a, b := testSecret(t, 'a'), testSecret(t, 'b')
	if !bytes.Equal(a.Derive("hop"), testSecret(t, 'a').Derive("hop")) {
		t.Error("the same secret and label gave two keys")
	}
	if len(a.Derive("hop")) != DerivedKey {
		t.Errorf("key has %d bytes", len(a.Derive("hop")))
	}
	if bytes.Equal(a.Derive("hop"), a.Derive("admin")) || bytes.Equal(a.Derive("hop"), b.Derive("hop")) {
		t.Error("different labels or secrets gave one key")
	}
	if bytes.Equal(a.Derive(labelCA), a.expand(labelCA)) {
		t.Error("Derive reaches the key of the certificate authority")
	}
}

func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	made, err := CreateSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	read, err := LoadSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made.Derive("x"), read.Derive("x")) {
		t.Error("the file holds another secret than the one returned")
	}
	if _, err := CreateSecret(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("second create: %v, want ErrExist", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = LoadSecret(path)
	if !errors.Is(err, ErrSecretMode) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open mode: %v, want ErrSecretMode with a hint", err)
	}
}

func TestSecretSize(t *testing.T) {
	for _, n := range []int{0, 1, MinSecret - 1, maxSecret + 1} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, bytes.Repeat([]byte{'x'}, n), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSecret(path); !errors.Is(err, ErrSecretSize) {
			t.Errorf("%d bytes: %v, want ErrSecretSize", n, err)
		}
	}
	a, err := NewSecret([]byte(strings.Repeat("x", MinSecret) + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint() != testSecret(t, 'x').Fingerprint() {
		t.Error("a final newline made another secret")
	}
}

// handshake returns what each side of a TLS handshake says.
func handshake(client, server *tls.Config) (cs, ss tls.ConnectionState, cerr, serr error) {
	a, b := net.Pipe()
	c, s := tls.Client(a, client), tls.Server(b, server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		if serr = s.Handshake(); serr == nil {
			_, serr = s.Write([]byte{1})
		}
	}()
	if cerr = c.Handshake(); cerr == nil {
		_, cerr = c.Read(make([]byte, 1)) // the server judges the client after the client is done
	}
	a.Close()
	<-done
	return c.ConnectionState(), s.ConnectionState(), cerr, serr
}

func TestPeersKnowEachOther(t *testing.T) {
	one, two := testCredentials(t, 'a', 1), testCredentials(t, 'a', 2)
	cs, ss, cerr, serr := handshake(one.ClientConfig(2), two.ServerConfig())
	if cerr != nil || serr != nil {
		t.Fatalf("handshake: client %v, server %v", cerr, serr)
	}
	if cs.Version != tls.VersionTLS13 {
		t.Errorf("version %x", cs.Version)
	}
	if id, err := one.Peer(cs); id != 2 || err != nil {
		t.Errorf("client sees node %d, %v", id, err)
	}
	if id, err := two.Peer(ss); id != 1 || err != nil {
		t.Errorf("server sees node %d, %v", id, err)
	}
}

func TestOtherSecretAndOtherNodeAreRefused(t *testing.T) {
	one, two := testCredentials(t, 'a', 1), testCredentials(t, 'a', 2)
	evil := testCredentials(t, 'b', 2)

	var unknown x509.UnknownAuthorityError
	_, _, cerr, serr := handshake(one.ClientConfig(2), evil.ServerConfig())
	if !errors.As(cerr, &unknown) || serr == nil {
		t.Errorf("server of another secret: client %v, server %v", cerr, serr)
	}
	var host x509.HostnameError
	_, _, cerr, serr = handshake(one.ClientConfig(3), two.ServerConfig())
	if !errors.As(cerr, &host) || serr == nil {
		t.Errorf("server is another node: client %v, server %v", cerr, serr)
	}
	// A client that does not check its server must still be refused by it.
	blind := evil.ClientConfig(2)
	blind.InsecureSkipVerify = true
	if _, _, cerr, serr = handshake(blind, two.ServerConfig()); serr == nil || cerr == nil {
		t.Errorf("client of another secret: client %v, server %v", cerr, serr)
	}
	bare := one.ClientConfig(2)
	bare.GetClientCertificate = nil
	if _, _, _, serr = handshake(bare, two.ServerConfig()); serr == nil {
		t.Error("client without a certificate was accepted")
	}
}

func TestNodeZeroHasNoCredentials(t *testing.T) {
	if _, err := testSecret(t, 'a').Credentials(0); err == nil {
		t.Error("node 0 got a certificate")
	}
}
