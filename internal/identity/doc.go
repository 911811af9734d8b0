// Package identity turns the cluster's shared secret into what its nodes need to
// know each other: TLS configurations with mutual authentication, and keys for
// other uses.
//
// Every node derives the same certificate authority from the secret (HKDF-SHA256,
// RFC 5869, then Ed25519) and, at each start, issues itself a certificate with a
// fresh key that names its node id. Who holds the secret can be any node: the
// secret protects the cluster from the outside, not one node from another.
// Certificates from an outside authority can take its place: the users of this
// package ask for configurations and a peer's node id, never for the secret.
//
// It is not a store of user accounts and opens no connections.
//
// Invariants: the certificate authority's key is never written anywhere, nor
// returned by Derive; certificates do not expire, because who could issue a new
// one could also issue an old one, and a node whose clock is wrong must be able
// to join its cluster.
package identity
