package api

import (
	"context"
	"errors"
	"net/http"
)

// Error is a refusal or a failure as it goes over the wire. A Node returns one,
// wrapped or not, to choose the name, the hint and the HTTP status; any other
// error becomes "internal".
type Error struct {
	// Status is the HTTP status.
	Status int `json:"-"`
	Problem
	// cause is what errors.Is and errors.As see; it stays in this process.
	cause error
}

// Error returns the reason. The hint is apart, so that a caller prints it on a
// line of its own: see HintOf.
func (e *Error) Error() string { return e.Reason }

// Unwrap returns the error that caused this one, or nil.
func (e *Error) Unwrap() error { return e.cause }

// ErrorHint returns what to do next.
func (e *Error) ErrorHint() string { return e.Hint }

// BadRequest is a request that cannot be right, whatever the state of the cluster.
func BadRequest(name, reason, hint string) *Error {
	return &Error{Status: http.StatusBadRequest, Problem: Problem{name, reason, hint}}
}

// NotFound is a request about something that is not there.
func NotFound(name, reason, hint string) *Error {
	return &Error{Status: http.StatusNotFound, Problem: Problem{name, reason, hint}}
}

// Refused is a request that the present state of the cluster forbids.
func Refused(name, reason, hint string) *Error {
	return &Error{Status: http.StatusConflict, Problem: Problem{name, reason, hint}}
}

// Unavailable is a request that may go through later.
func Unavailable(name, reason, hint string) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Problem: Problem{name, reason, hint}}
}

// Because returns e with the error that caused it.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// toError turns any error into one that can be sent.
func toError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		out := *e
		if out.Status == 0 {
			out.Status = http.StatusInternalServerError
		}
		return &out
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusGatewayTimeout, Problem: Problem{
			"timeout", err.Error(), "the outcome is unknown: look at the status, then try again"}}
	}
	return &Error{Status: http.StatusInternalServerError, Problem: Problem{
		"internal", err.Error(), HintOf(err)}}
}

// HintOf returns the hint of the first error in err's chain that has one.
func HintOf(err error) string {
	var h interface{ ErrorHint() string }
	if errors.As(err, &h) {
		return h.ErrorHint()
	}
	return ""
}
