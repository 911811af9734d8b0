package identity

import (
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phxsql/phxsql/paxos"
)

func underTerms(t *testing.T, node paxos.NodeID, terms Terms) *Credentials {
	t.Helper()
	c, err := testSecret(t, 'a').CredentialsUnder(node, terms)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Two nodes that run for two years with the configurations that they began with always
// show each other a certificate with at least a third of its life left.
func TestCertificatesAreRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := testCredentials(t, 'a', 1), testCredentials(t, 'a', 2)
		client, server := one.ClientConfig(2), two.ServerConfig()
		serials := map[string]bool{}
		for range 2 * 365 / 5 {
			cs, ss, cerr, serr := handshake(client, server)
			if cerr != nil || serr != nil {
				t.Fatalf("%v: client %v, server %v", time.Now(), cerr, serr)
			}
			for _, leaf := range []*x509.Certificate{cs.PeerCertificates[0], ss.PeerCertificates[0]} {
				if left := time.Until(leaf.NotAfter); left < CertificateLifetime/3 {
					t.Fatalf("%v: the certificate of %q has only %v left", time.Now(), leaf.Subject.CommonName, left)
				}
			}
			serials[cs.PeerCertificates[0].SerialNumber.String()] = true
			time.Sleep(5 * 24 * time.Hour) // of the bubble's clock
		}
		if n := len(serials); n < 11 || n > 13 { // one each 60 days and a bit
			t.Errorf("%d certificates in two years", n)
		}
	})
}

// One whose owner was down for a year, or whose machine slept, is renewed by its first
// use, and so is one that a clock in the future has issued.
func TestCertificatesAreRenewedAfterALongPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		skew := 365 * 24 * time.Hour
		one, two := testCredentials(t, 'a', 1), underTerms(t, 2, Terms{Now: func() time.Time { return time.Now().Add(skew) }})
		skew = 0 // the clock was put right
		time.Sleep(500 * 24 * time.Hour)
		if _, _, cerr, serr := handshake(one.ClientConfig(2), two.ServerConfig()); cerr != nil || serr != nil {
			t.Errorf("after the pause: client %v, server %v", cerr, serr)
		}
		skew = -500 * 24 * time.Hour
		if left := two.Expires().Sub(time.Now().Add(skew)); left > CertificateLifetime {
			t.Errorf("after the clock was set back the certificate still has %v left", left)
		}
	})
}

// Clocks that differ by hours do not matter, even at the end of a short life; those
// that differ by months do, in both directions and on both sides.
func TestCertificatesAndWrongClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 24 * time.Hour
		right := underTerms(t, 1, Terms{Lifetime: life})
		for _, c := range []struct {
			skew time.Duration
			good bool
		}{
			{6 * time.Hour, true}, {-6 * time.Hour, true}, {200 * 24 * time.Hour, false}, {-200 * 24 * time.Hour, false},
		} {
			wrong := underTerms(t, 2, Terms{Lifetime: life, Now: func() time.Time { return time.Now().Add(c.skew) }})
			for range 30 { // through all ages of both certificates
				_, _, cerr, serr := handshake(right.ClientConfig(2), wrong.ServerConfig())
				check(t, c.skew, c.good, cerr)
				_, _, _, serr2 := handshake(wrong.ClientConfig(1), right.ServerConfig())
				if c.good {
					check(t, c.skew, true, errors.Join(serr, serr2))
				}
				time.Sleep(time.Hour)
			}
		}
	})
}

func check(t *testing.T, skew time.Duration, good bool, err error) {
	t.Helper()
	var invalid x509.CertificateInvalidError
	switch {
	case good && err != nil:
		t.Fatalf("clock wrong by %v: %v", skew, err)
	case !good && (!errors.As(err, &invalid) || invalid.Reason != x509.Expired):
		t.Fatalf("clock wrong by %v: %v, want a certificate that is not valid now", skew, err)
	}
}

func TestLifetimeHasLimits(t *testing.T) {
	for _, d := range []time.Duration{-time.Hour, time.Second, MaxCertificateLifetime + 1} {
		if _, err := testSecret(t, 'a').CredentialsUnder(1, Terms{Lifetime: d}); err == nil {
			t.Errorf("a certificate may live for %v", d)
		}
	}
}
