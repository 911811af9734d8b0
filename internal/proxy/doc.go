// Package proxy is the client side of a node: the read-write port, which leads
// to the master wherever it is, and the read-only port, which leads to the local
// server.
//
// A session is one client connection and one server connection with two
// goroutines between them, one per direction. Bytes are passed on as they are.
// In a plaintext session the proxy looks at packet headers (never at the
// payload of rows) so that it knows whose turn it is; it takes part in the
// login only where it must, which is the RSA exchange of caching_sha2_password.
// A TLS session is opaque: the client and the server
// encrypt end to end.
//
// It is not a pooler, a query router or a cache, and it knows no accounts.
//
// Invariants:
//   - On a local route of the read-write port, bytes that were read from the
//     server reach the client only if the gate was open after they were read.
//   - A connection that came from another member is never forwarded again.
//   - A cut session never continues: after its error packet, or without one, its
//     connection ends.
//   - An idle session holds no buffer.
//
// Two things follow from the server seeing a Unix socket. Every client is
// 'user'@'localhost' to it. And a plugin that trusts the socket's peer
// (auth_socket) would see this process's user instead of the client: it must
// not be installed.
package proxy
