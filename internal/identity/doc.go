// Package identity turns the cluster's shared secret into what its nodes need to
// know each other: TLS configurations with mutual authentication, and keys for
// other uses.
//
// Every node derives the same certificate authority from the secret (HKDF-SHA256,
// RFC 5869, then Ed25519) and issues itself certificates, each with a
// fresh key, that name its node id and end after 90 days; it does so again before they
// end. Who holds the secret can be any node: the secret protects the cluster from the
// outside, not one node from another.
// Certificates from an outside authority can take its place: the users of this
// package ask for configurations and a peer's node id, never for the secret.
//
// It is not a store of user accounts and opens no connections.
//
// Invariants: the certificate authority's key is never written anywhere, nor
// returned by Derive; no key of a certificate is ever on a disk; a node needs nobody
// else to get a certificate, however long it was away.
package identity
