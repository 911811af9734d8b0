package binlog

import (
	"errors"
	"testing"
	"time"

	"github.com/phxsql/phxsql/internal/gtid"
)

func TestPreparedFileIsWellFormed(t *testing.T) {
	executed, err := gtid.ParseSet("0a5b1c3e-0000-11ee-b962-0242ac120001:1-5:tag:1-3")
	if err != nil {
		t.Fatal(err)
	}
	ids := []XAID{{77, "b\x00c", ""}, {1, "a", "branch"}, {77, "b\x00b", ""}}
	b, err := PreparedFile("9.7.4", 7, time.Unix(1, 0), executed, ids)
	if err != nil {
		t.Fatal(err)
	}
	var types []Type
	var txn Transaction
	begins := 0
	for at := MagicSize; at < len(b); {
		h, err := ParseHeader(b[at:])
		if err != nil {
			t.Fatal(err)
		}
		if at += int(h.Size); int(h.LogPos) != at || !Verify(b[at-int(h.Size):at]) {
			t.Errorf("%v event ends at %d and says %d", h.Type, at, h.LogPos)
		}
		types = append(types, h.Type)
		switch h.Type {
		case GTID:
			begins = at - int(h.Size)
			if txn, err = ParseGTID(b[begins:at]); err != nil || !executed.Contains(txn.GTID) {
				t.Errorf("GTID %v: %v", txn.GTID, err)
			}
		case XAPrepare:
			if uint64(at-begins) != txn.Length {
				t.Errorf("a group of %d bytes says %d", at-begins, txn.Length)
			}
		}
	}
	if len(types) != 2+4*len(ids) || types[1] != PreviousGTIDs || types[len(types)-1] != XAPrepare {
		t.Errorf("events %v", types)
	}
}

func TestConfusedIdentifiersAreRefused(t *testing.T) {
	executed, err := gtid.ParseSet("0a5b1c3e-0000-11ee-b962-0242ac120001:1-5")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ids []XAID
		bad bool
	}{
		{[]XAID{{1, "long", ""}, {2, "s", ""}}, true},
		{[]XAID{{2, "s", ""}, {1, "long", ""}}, true},
		{[]XAID{{1, "s", ""}, {2, "long", ""}}, false},
		{[]XAID{{1, "same", ""}, {2, "same", ""}}, false},
		{[]XAID{{-2, "a", ""}}, true},
	} {
		if _, err := PreparedFile("9.7.4", 7, time.Unix(1, 0), executed, c.ids); errors.Is(err, ErrXAOrder) != c.bad {
			t.Errorf("%v: %v", c.ids, err)
		}
	}
	if _, err := PreparedFile("9.7.4", 7, time.Unix(1, 0), &gtid.Set{}, []XAID{{1, "a", ""}}); err == nil {
		t.Error("a group without a GTID")
	}
}
