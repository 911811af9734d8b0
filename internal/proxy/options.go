package proxy

import (
	"log/slog"
	"time"
)

// Options configure a Proxy. Socket is required; zero values of the limits stand
// for the defaults.
type Options struct {
	// Socket is the path of the local server's Unix socket.
	Socket string
	// Gate reports whether this node may answer as the master at this moment:
	// it leads and its lease runs. It is called for each piece of data of a
	// local read-write session and must be cheap. Nil is always open.
	Gate func() bool
	// Key gives the local server's RSA key. Without it, plaintext clients
	// cannot log in for the first time to an account of
	// caching_sha2_password; TLS clients can.
	Key KeySource
	// Secret is shared by the members and proves that a forwarded connection
	// comes from one of them. It belongs to this use alone: derive it from the
	// cluster's secret.
	Secret []byte
	// Node is this node's id; it is told to the member that a connection is
	// forwarded to.
	Node uint64
	// HoldLimit is how long a new connection to the read-write port waits for
	// a master. It then gets an error packet.
	HoldLimit time.Duration
	// LoginLimit is how long a client may take from the server's greeting to
	// the end of its login, as far as the proxy can see it (TLS hides it).
	// The session is then ended.
	LoginLimit time.Duration
	// DialLimit is how long one attempt to connect to a member may take.
	DialLimit time.Duration
	// DrainGrace is how long a session must have been quiet before Drain
	// closes it without a command to answer.
	DrainGrace time.Duration
	// MaxSessions limits each port's sessions, waiting ones included. What is
	// above gets error 1040.
	MaxSessions int
	// ServerSessions limits the sessions of both ports with the local server,
	// so that what its limit leaves over stays free for others. What is above
	// gets error 1040 at once. Zero is no limit.
	ServerSessions int
	// Logger gets events: Info for changes of the routes, cuts and drains,
	// Warn for what is refused, Debug for single sessions. Nil discards them.
	Logger *slog.Logger
}

// Defaults of the options.
const (
	DefaultHoldLimit   = 10 * time.Second
	DefaultLoginLimit  = 10 * time.Second
	DefaultDialLimit   = 2 * time.Second
	DefaultDrainGrace  = 15 * time.Millisecond
	DefaultMaxSessions = 10_000
)

// Limits that are not options.
const (
	// hopPatience is how long a connection that is about to be forwarded may
	// take to show that it was forwarded already. A client says nothing before
	// the greeting, so it waits for this long; a member speaks at once. If a
	// header is later than that, the session turns back when it comes.
	hopPatience = time.Millisecond
	// retryFirst and retryLast bound the pause between two attempts to reach a
	// server whose route is known.
	retryFirst = 5 * time.Millisecond
	retryLast  = 100 * time.Millisecond
	// errorLimit bounds the writing of an error packet to a client.
	errorLimit = 200 * time.Millisecond
	// lingerLimit is how long a connection that was ended is kept to take in
	// what the client had still sent: a close with unread bytes would be a
	// reset, which can destroy the answer on its way.
	lingerLimit = 500 * time.Millisecond
	// cutLimit bounds how long Cut waits for the sessions to be gone.
	cutLimit = time.Second
	// settleTime is the age from which a draining session may be closed with
	// an answer: drivers do not expect the end right behind the login.
	settleTime = 50 * time.Millisecond
	// loginGrace is how long a draining session may be silent in its login: some
	// health checks connect and never log in.
	loginGrace = 250 * time.Millisecond
	// darkGraces is how many times DrainGrace a session must have been quiet
	// that cannot be followed.
	darkGraces = 3
	// sweepPause is the time between two looks at a draining port's sessions.
	sweepPause = 5 * time.Millisecond
	// askPause is the shortest time between two calls of Busy.
	askPause = 120 * time.Millisecond
	// acceptPause is the pause after a failed accept (no file descriptors).
	acceptPause = 50 * time.Millisecond
)

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.HoldLimit, DefaultHoldLimit}, {&o.LoginLimit, DefaultLoginLimit}, {&o.DialLimit, DefaultDialLimit},
		{&o.DrainGrace, DefaultDrainGrace},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = DefaultMaxSessions
	}
	if o.Gate == nil {
		o.Gate = func() bool { return true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
