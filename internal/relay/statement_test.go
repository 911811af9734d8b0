package relay

import (
	"strings"
	"testing"
)

func TestParseRoutine(t *testing.T) {
	for _, c := range []struct {
		text   string
		change routineChange
		want   Routine
	}{
		{"DROP PROCEDURE p", routineDropped, Routine{Procedure, "", "p"}},
		{"drop function if exists d.f", routineDropped, Routine{Function, "d", "f"}},
		{"Drop\tProcedure\nIf Exists `a``b` . `c.d`;", routineDropped, Routine{Procedure, "a`b", "c.d"}},
		{`DROP PROCEDURE "d"."p"`, routineDropped, Routine{Procedure, "d", "p"}},
		{"DROP PROCEDURE 1p.$q_2 /* generated */", routineDropped, Routine{Procedure, "1p", "$q_2"}},
		{"/*!50003 DROP PROCEDURE IF EXISTS `p` */", routineDropped, Routine{Procedure, "", "p"}},
		{"/* x */ -- y\n# z\nDROP /*! FUNCTION*/ /* . */ d/**/./**/f", routineDropped, Routine{Function, "d", "f"}},
		{"DROP PROCEDURE größe", routineDropped, Routine{Procedure, "", "größe"}},
		{"DROP PROCEDURE `if`", routineDropped, Routine{Procedure, "", "if"}},
		{"DROP PROCEDURE `procedure`.`function`", routineDropped, Routine{Procedure, "procedure", "function"}},
		{"CREATE DEFINER=`u`@`h` PROCEDURE `p`()\nBEGIN END", routineCreated, Routine{Procedure, "", "p"}},
		{"CREATE DEFINER=`u`@`%` FUNCTION `d`.`f`(a INT) RETURNS INT RETURN 1", routineCreated, Routine{Function, "d", "f"}},
		{"CREATE DEFINER = 'u'@localhost PROCEDURE IF NOT EXISTS p()", routineCreated, Routine{Procedure, "", "p"}},
		{"CREATE DEFINER=CURRENT_USER() PROCEDURE p()", routineCreated, Routine{Procedure, "", "p"}},
		{"CREATE OR REPLACE PROCEDURE p()", routineCreated, Routine{Procedure, "", "p"}},
		{"CREATE AGGREGATE FUNCTION f RETURNS INT SONAME 'x'", routineCreated, Routine{Function, "", "f"}},
		{"CREATE DEFINER=`a@b`@`h` VIEW procedure_v AS SELECT 1", routineUntouched, Routine{}},
		{"CREATE TABLE `PROCEDURE` (a INT)", routineUntouched, Routine{}},
		{"DROP TABLE IF EXISTS `procedure`", routineUntouched, Routine{}},
		{"BEGIN", routineUntouched, Routine{}},
		{"INSERT INTO t VALUES ('DROP PROCEDURE p')", routineUntouched, Routine{}},
		{"`DROP` PROCEDURE p", routineUntouched, Routine{}},
		{"", routineUntouched, Routine{}},
		{"/* DROP PROCEDURE p", routineUnreadable, Routine{}},
		{"DROP", routineUnreadable, Routine{}},
		{"DROP PROCEDURE", routineUnreadable, Routine{}},
		{"DROP PROCEDURE `p", routineUnreadable, Routine{}},
		{"DROP PROCEDURE ``", routineUnreadable, Routine{}},
		{"DROP PROCEDURE d.", routineUnreadable, Routine{}},
		{"DROP PROCEDURE IF p", routineUnreadable, Routine{}},
		{"CREATE DEFINER `u` PROCEDURE p()", routineUnreadable, Routine{}},
	} {
		if got, change := parseRoutine(c.text, false); change != c.change || change != routineUnreadable && got != c.want {
			t.Errorf("%q: %d, %+v", c.text, change, got)
		}
	}
}

// However a statement is cut, it is not taken for one about another routine.
func TestACutStatementIsNotMisread(t *testing.T) {
	for _, text := range []string{
		"/* x */ DROP PROCEDURE IF EXISTS `d`.`proc``e`;", "drop function dd.ff ", "CREATE DEFINER=`u`@`h` PROCEDURE dd.pp ()",
	} {
		want, change := parseRoutine(text, false)
		for n := range len(text) {
			got, is := parseRoutine(text[:n], true)
			if is != routineUnreadable && (is != change || got != want) {
				t.Errorf("%q: %d, %+v", text[:n], is, got)
			}
		}
	}
}

func FuzzParseRoutine(f *testing.F) {
	f.Add("DROP PROCEDURE IF EXISTS `a``b`.c", false)
	f.Add("CREATE DEFINER=`u`@`h` FUNCTION f() RETURNS INT RETURN 1", true)
	f.Add("/*!50003 DROP /* x */ FUNCTION # y\n z */", false)
	f.Fuzz(func(t *testing.T, text string, cut bool) {
		r, change := parseRoutine(text, cut)
		if change >= numRoutineChanges {
			t.Fatalf("%q: %d", text, change)
		}
		if change != routineDropped && change != routineCreated {
			return
		}
		if r.Name == "" || r.Type != Procedure && r.Type != Function {
			t.Fatalf("%q: %+v", text, r)
		}
		quote := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
		name := quote(r.Name)
		if r.Schema != "" {
			name = quote(r.Schema) + "." + name
		}
		if again, is := parseRoutine("DROP "+r.Type+" "+name, false); is != routineDropped || again != r {
			t.Fatalf("%q: %+v, quoted: %+v", text, r, again)
		}
	})
}
