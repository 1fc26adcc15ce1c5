package file

import "bytes"

// chunk is the text of one document in a file.
type chunk struct {
	start, end int // bytes
	line       int // of the first byte, counted from 1
	// inline: the text begins on the line of the "---" before it.
	inline bool
}

// split finds the documents of a YAML stream. A line that begins with "---" or "..." is a document's boundary wherever it
// stands, also inside quotes and block scalars (YAML 1.2.2, section 9.1.2), so nothing has to be parsed to find it.
// The chunks and the boundary lines together are the whole text.
func split(text []byte) []chunk {
	var chunks []chunk
	now := chunk{line: 1}
	line := 1
	for at := 0; at < len(text); line++ {
		next := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if boundary(text[at:next]) {
			now.end = at
			chunks = append(chunks, now)
			now = chunk{start: next, line: line + 1}
			if text[at] == '-' && len(bytes.TrimSpace(text[at+3:next])) > 0 {
				now = chunk{start: at + 3, line: line, inline: true}
			}
		}
		at = next
	}
	now.end = len(text)
	return append(chunks, now)
}

func boundary(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\r' || line[3] == '\n'
}

// blank reports whether a chunk holds nothing but comments, directives (YAML 1.2.2, section 6.8) and white space.
func blank(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // byte order mark
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}
