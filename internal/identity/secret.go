package identity

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	// MinSecret is the least length of a secret in bytes.
	MinSecret = 32
	// maxSecret bounds what is read from a secret file.
	maxSecret = 4096
	// DerivedKey is the length in bytes of what Derive returns.
	DerivedKey = 32

	salt         = "phxsql/v1"
	labelCA      = "certificate authority"
	labelPrint   = "fingerprint"
	labelDerived = "derived/" // in front of every label of Derive: no label can reach the two above
)

var (
	// ErrSecretMode says that others than its owner may read the secret file.
	ErrSecretMode = errors.New("secret file is open to others")
	// ErrSecretSize says that a secret is too short to be one, or far too long.
	ErrSecretSize = errors.New("secret has a wrong size")
)

// Secret is what the nodes of a cluster share.
type Secret struct {
	prk []byte // HKDF pseudo-random key
}

// NewSecret makes a Secret from its bytes. White space at the ends does not
// count, so that an editor's final newline does not make another secret.
func NewSecret(b []byte) (*Secret, error) {
	b = bytes.TrimSpace(b)
	if len(b) < MinSecret || len(b) > maxSecret {
		return nil, fmt.Errorf("read secret: %d bytes, want %d to %d (make one with: head -c 32 /dev/urandom | base64): %w",
			len(b), MinSecret, maxSecret, ErrSecretSize)
	}
	prk, err := hkdf.Extract(sha256.New, b, []byte(salt))
	if err != nil {
		return nil, fmt.Errorf("extract key from secret: %w", err)
	}
	return &Secret{prk: prk}, nil
}

// LoadSecret reads the secret from a file, which must be a regular one that its
// owner alone may read.
func LoadSecret(path string) (*Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open secret file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat secret file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read secret file %s: not a regular file", path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read secret file %s: mode %#o (run: chmod 600 %s): %w",
			path, st.Mode().Perm(), path, ErrSecretMode)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+2))
	if err != nil {
		return nil, fmt.Errorf("read secret file %s: %w", path, err)
	}
	s, err := NewSecret(b)
	if err != nil {
		return nil, fmt.Errorf("secret file %s: %w", path, err)
	}
	return s, nil
}

// CreateSecret writes a new random secret to a file that must not exist (mode
// 0600, synced with its folder) and returns it.
func CreateSecret(path string) (*Secret, error) {
	raw := make([]byte, MinSecret)
	rand.Read(raw) // never fails
	text := hex.AppendEncode(nil, raw)
	if err := writeNew(path, append(text, '\n')); err != nil {
		return nil, err
	}
	return NewSecret(text)
}

func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create secret file: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write secret file %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Derive returns a key of DerivedKey bytes for the use that label names. Equal
// labels give equal keys on every node; the key of one label says nothing about
// that of another.
func (s *Secret) Derive(label string) []byte { return s.expand(labelDerived + label) }

// Fingerprint is a short public name of the secret: nodes whose fingerprints
// differ hold different secrets.
func (s *Secret) Fingerprint() string { return hex.EncodeToString(s.expand(labelPrint)[:4]) }

func (s *Secret) expand(info string) []byte {
	b, err := hkdf.Expand(sha256.New, s.prk, info, DerivedKey)
	if err != nil {
		panic(fmt.Sprintf("identity: expand key: %v", err)) // fails only for absurd lengths
	}
	return b
}
