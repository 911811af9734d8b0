package proxy

import (
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the protocol's OAEP uses SHA-1
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

var errPassword = errors.New("password exchange failed")

// keyPacket returns the packet that gives the client the server's public key, in
// the form that the server itself would send: 01 and PEM.
func (t *talk) keyPacket(seq byte) ([]byte, error) {
	key, err := t.login.key()
	if err == nil {
		var der []byte
		if der, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err == nil {
			text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
			return appendPacket(nil, seq, append([]byte{markMore}, text...)), nil
		}
	}
	reply := appendERR(nil, seq, failure{codeDenied, stateDenied,
		"phxsql: the server's RSA key is not available, so this login needs TLS (--ssl-mode=REQUIRED)"})
	return reply, fmt.Errorf("give the server's public key: %v: %w", err, errPassword)
}

// password decrypts what a client sent and returns the password with its NUL.
// On failure it returns the packet that tells the client.
func (t *talk) password(blob []byte, seq byte) (password, reply []byte, err error) {
	key, err := t.login.key()
	if err == nil {
		password, err = decryptPassword(key, blob, t.login.nonce)
	}
	if err != nil {
		reply = appendERR(nil, seq, failure{codeDenied, stateDenied,
			"phxsql: the password cannot be decrypted: it was encrypted with another server's key; ask for this one's (--get-server-public-key) or use TLS"})
		return nil, reply, fmt.Errorf("decrypt password: %v: %w", err, errPassword)
	}
	return password, nil, nil
}

// decryptPassword undoes RSA-OAEP and the XOR with the nonce.
func decryptPassword(key *rsa.PrivateKey, blob, nonce []byte) ([]byte, error) {
	if len(nonce) != nonceSize {
		return nil, fmt.Errorf("nonce of %d bytes, want %d", len(nonce), nonceSize)
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, key, blob, nil) //nolint:gosec // see the import
	if err != nil {
		return nil, err
	}
	for i := range plain {
		plain[i] ^= nonce[i%nonceSize]
	}
	if len(plain) == 0 || plain[len(plain)-1] != 0 {
		return nil, errors.New("no NUL at the end")
	}
	return plain, nil
}
