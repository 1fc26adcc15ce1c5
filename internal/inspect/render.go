package inspect

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Renderer writes messages of caracal.v1 as text for people. It is the only one there is: the command line and every
// golden file use it. Lines never end in blanks, and the order is the one of the messages.
type Renderer struct {
	Now        time.Time // what ages are counted from
	Timestamps bool      // write times in full (RFC 3339, UTC) instead of ages
}

// since writes how long ago something became so, or when.
func (r Renderer) since(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	if r.Timestamps {
		return t.AsTime().UTC().Format(time.RFC3339)
	}
	return age(r.Now.Sub(t.AsTime()))
}

// age writes a duration in its one or two largest units: 7s, 4m30s, 25m, 3h10m, 2d4h, 40d.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(d, 0) // clocks of two machines, or of one that was set back
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 10*time.Minute:
		return two(d, time.Minute, "m", time.Second, "s")
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		return two(d, time.Hour, "h", time.Minute, "m")
	case d < 10*day:
		return two(d, day, "d", time.Hour, "h")
	}
	return fmt.Sprintf("%dd", d/day)
}

// two writes the larger unit, and the smaller one unless it is zero.
func two(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	s := fmt.Sprintf("%d%s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		s += fmt.Sprintf("%d%s", rest, smallName)
	}
	return s
}

// wide is the width past which a cell does not widen its column any more: one multipath route of many next hops would
// push everybody's reason off the screen. Its own line is simply longer.
const wide = 80

// table is lines of cells in aligned columns.
type table struct {
	rows   [][]string
	right  map[int]bool // columns of numbers
	indent string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write aligns the columns and writes the rows; an empty cell reads "-" unless it is the row's last.
func (t *table) write(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if n := utf8.RuneCountInString(filled(cell)); n <= wide {
				widths[i] = max(widths[i], n)
			}
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		b.WriteString(t.indent)
		for i, cell := range row {
			if i < len(row)-1 {
				cell = filled(cell)
			}
			pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell)))
			if i > 0 {
				b.WriteString("  ")
			}
			if t.right[i] {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
		}
		if err := flushLine(w, &b); err != nil {
			return err
		}
	}
	return nil
}

// flushLine writes what was built as one line without trailing blanks.
func flushLine(w io.Writer, b *strings.Builder) error {
	_, err := io.WriteString(w, strings.TrimRight(b.String(), " ")+"\n")
	b.Reset()
	return err
}

func filled(cell string) string {
	if cell == "" {
		return "-"
	}
	return cell
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
