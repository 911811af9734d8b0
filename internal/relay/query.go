package relay

import "fmt"

// exec runs a statement that has no rows.
func (w *wire) exec(sql string) error {
	if err := w.command(append([]byte{comQuery}, sql...)); err != nil {
		return err
	}
	return w.expectOK(sql)
}

// expectOK reads the answer to a command.
func (w *wire) expectOK(what string) error {
	b, err := w.read()
	switch {
	case err != nil:
		return err
	case len(b) > 0 && b[0] == packetOK:
		return nil
	case len(b) > 0 && b[0] == packetError:
		return fmt.Errorf("run %q: %w", clipText(what), parseServerError(b))
	}
	return fmt.Errorf("run %q: %w", clipText(what), errProtocol)
}

// row runs a statement and returns its first row; NULL reads as empty.
func (w *wire) row(sql string) ([]string, error) {
	if err := w.command(append([]byte{comQuery}, sql...)); err != nil {
		return nil, err
	}
	b, err := w.read()
	if err != nil {
		return nil, err
	}
	if len(b) > 0 && b[0] == packetError {
		return nil, fmt.Errorf("run %q: %w", clipText(sql), parseServerError(b))
	}
	columns, _, ok := lenenc(b)
	if !ok || columns == 0 || columns > 100 {
		return nil, fmt.Errorf("run %q: no rows: %w", clipText(sql), errProtocol)
	}
	for range columns + 1 { // the definitions and their end
		if _, err := w.read(); err != nil {
			return nil, err
		}
	}
	var first []string
	for n := 0; ; n++ {
		b, err := w.read()
		switch {
		case err != nil:
			return nil, err
		case isEOF(b):
			if first == nil {
				return nil, fmt.Errorf("run %q: no rows: %w", clipText(sql), errProtocol)
			}
			return first, nil
		case len(b) > 0 && b[0] == packetError:
			return nil, fmt.Errorf("run %q: %w", clipText(sql), parseServerError(b))
		case n == 0:
			if first, err = parseRow(b, int(columns)); err != nil {
				return nil, fmt.Errorf("run %q: %w", clipText(sql), err)
			}
		}
	}
}

func parseRow(b []byte, columns int) ([]string, error) {
	row := make([]string, 0, columns)
	for range columns {
		if len(b) > 0 && b[0] == 0xfb {
			row, b = append(row, ""), b[1:]
			continue
		}
		s, rest, ok := lenencBytes(b)
		if !ok {
			return nil, fmt.Errorf("parse row: %w", errProtocol)
		}
		row, b = append(row, string(s)), rest
	}
	return row, nil
}

// answer sends a result of one column and one row.
func (w *wire) answer(column, value string) error {
	const typeVarString, length = 0xfd, 1024
	def := appendLenencBytes(nil, "def")
	for _, s := range []string{"", "", "", column, ""} { // schema, table, its name, column, its name
		def = appendLenencBytes(def, s)
	}
	def = append(def, 12, charsetUTF8MB4, 0, byte(length&0xff), length>>8, 0, 0, typeVarString, 0, 0, 0, 0, 0)
	eof := []byte{packetEOF, 0, 0, statusAutocommit, 0}
	for _, b := range [][]byte{{1}, def, eof, appendLenencBytes(nil, value), eof} {
		if err := w.write(b); err != nil {
			return err
		}
	}
	return nil
}
