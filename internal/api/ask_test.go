package api

import (
	"net/http/httptest"
	"strings"
)

// ask sends a request to the server without a connection.
func ask(s *Server, method, path, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec
}
