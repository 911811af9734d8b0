package mysqld

import (
	"slices"
	"testing"
)

// What a DROP has left is removed, and nothing else; the server is as fenced as before.
func TestEndDropped(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t))
	writable(t, s, true)
	for _, q := range []string{
		"CREATE DATABASE d", "CREATE USER u", "CREATE USER v", "CREATE USER w", "CREATE PROCEDURE d.stays() SELECT 1", "GRANT EXECUTE ON PROCEDURE d.stays TO u",
		"INSERT INTO mysql.procs_priv (host, db, user, routine_name, routine_type, proc_priv) VALUES ('%', 'd', 'u', 'Gone', 'PROCEDURE', 'Execute')," +
			"('%', 'd', 'v', 'gone', 'PROCEDURE', 'Execute'), ('%', 'd', 'u', 'gone', 'FUNCTION', 'Execute'), ('%', 'D', 'u', 'gone', 'PROCEDURE', 'Execute')," +
			"('%', 'd', 'w', 'göne', 'PROCEDURE', 'Execute'), ('%', 'd', 'u', 'other', 'PROCEDURE', 'Execute')",
		"FLUSH PRIVILEGES",
	} {
		must(t, s, q)
	}
	libraries, err := s.hasLibraries(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if libraries {
		must(t, s, "CREATE LIBRARY d.stays LANGUAGE JAVASCRIPT AS 'export function f() {}'")
		must(t, s, "INSERT INTO mysql.procs_priv (host, db, user, routine_name, routine_type, proc_priv) VALUES "+
			"('%', 'd', 'u', 'stays', 'LIBRARY', 'Execute'), ('%', 'd', 'u', 'gone', 'LIBRARY', 'Execute'), ('%', 'd', 'u', 'kept', 'LIBRARY', 'Execute')")
	}
	if err := s.SetReadOnly(bounded(t), true); err != nil {
		t.Fatal(err)
	}
	set := executed(t, s)
	if err := s.EndDropped(bounded(t), []Routine{{"PROCEDURE", "d", "stays"}, {"PROCEDURE", "d", "GONE"}, {"FUNCTION", "d", "other"}, {"LIBRARY", "d", "stays"}, {"LIBRARY", "d", "gone"}}); err != nil {
		t.Fatal(err)
	}
	left, err := s.UngroundedGrants(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range left {
		names = append(names, r.String())
	}
	want := []string{"function d.gone", "procedure D.gone", "procedure d.göne", "procedure d.other"}
	stay := 1
	if libraries {
		want, stay = append(want, "library d.kept"), 2
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("left are %q, want %q", names, want)
	}
	var n int
	if err := s.one(bounded(t), "count", "SELECT COUNT(*) FROM mysql.procs_priv WHERE routine_name = 'stays'", &n); err != nil || n != stay {
		t.Errorf("%d grants on routines that exist, %v", n, err)
	}
	if ro, err := s.ReadOnly(bounded(t)); err != nil || !ro || executed(t, s) != set {
		t.Errorf("read-only %v, executed %s, was %s, %v", ro, executed(t, s), set, err)
	}
	must(t, s, "SET GLOBAL automatic_sp_privileges = OFF")
	if left, err := s.UngroundedGrants(bounded(t)); err != nil || len(left) != 0 {
		t.Errorf("%v of a server that keeps grants, %v", left, err)
	}
}
