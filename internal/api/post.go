package api

import (
	"context"
	"net/http"
	"time"

	"github.com/phxsql/phxsql/internal/telemetry"
)

// request is what a POST carries.
type request interface {
	// check says what is wrong with its form.
	check() error
	// note is what the node's log says of it: keys and values.
	note() []any
}

// post is the handler of a route that changes something: it reads the request, checks its
// form, notes under event that it came, and answers with what do returns within limit.
func post[Req any, P interface {
	*Req
	request
}, Res any](s *Server, event string, limit time.Duration, do func(context.Context, Req) (Res, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Req
		err := readJSON(w, r, &req)
		if err == nil {
			err = P(&req).check()
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.log.Info(event, append([]any{telemetry.KeyClient, r.RemoteAddr}, P(&req).note()...)...)
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		res, err := do(ctx, req)
		s.answer(w, r, res, err)
	}
}
