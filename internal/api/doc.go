// Package api is the node's admin API: HTTP and JSON over mutual TLS, its types,
// its server and its client. Everything that people and tools do to a running
// node goes through it; the command line has no other way in.
//
// It is not the data path (see proxy) and decides nothing: the server checks the
// form of a request, asks a Node, and renders the answer. It keeps no state.
//
// Invariants:
//   - Every answer that is not a success is one Error: a name that programs can
//     compare, a reason for people, and a hint that says what to do next.
//   - Requests and answers have a limit in size, and every request one in time,
//     but for streams, which end when the client leaves.
//   - Fields are only ever added. A client ignores fields that it does not know;
//     a server refuses them in requests.
package api
