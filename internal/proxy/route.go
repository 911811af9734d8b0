package proxy

import "fmt"

// RouteKind says where new sessions go.
type RouteKind uint8

// The kinds of routes.
const (
	RouteNone   RouteKind = iota // nowhere for now
	RouteLocal                   // to the local server
	RouteRemote                  // to another member's read-write port
)

// Route is where the read-write port leads.
type Route struct {
	Kind   RouteKind
	Addr   string // RouteRemote: host:port
	Reason string // RouteNone: why, for people
}

// Local is the route of the master itself.
func Local() Route { return Route{Kind: RouteLocal} }

// Remote is the route to the master's read-write port.
func Remote(addr string) Route { return Route{Kind: RouteRemote, Addr: addr} }

// None is the route while there is no master, or none that is known.
func None(reason string) Route { return Route{Kind: RouteNone, Reason: reason} }

func (r Route) String() string {
	switch r.Kind {
	case RouteLocal:
		return "local"
	case RouteRemote:
		return "remote " + r.Addr
	}
	return fmt.Sprintf("none (%s)", r.Reason)
}

// sameTarget reports whether both lead to the same server.
func (r Route) sameTarget(o Route) bool { return r.Kind == o.Kind && r.Addr == o.Addr }
