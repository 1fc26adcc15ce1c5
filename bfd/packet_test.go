package bfd

import (
	"errors"
	"testing"
	"time"
)

// sample has another value in every field.
func sample() packet {
	return packet{diag: NeighborSignaledDown, state: Init, poll: true, controlPlaneIndependent: true, multiplier: 3, my: 0x01020304, your: 0x05060708,
		desiredMinTx: 50 * time.Millisecond, requiredMinRx: 60 * time.Millisecond, requiredMinEchoRx: 70 * time.Millisecond}
}

// TestWire compares with octets written down from RFC 5880 section 4.1.
func TestWire(t *testing.T) {
	p := sample()
	want := []byte{1<<5 | 3, 2<<6 | 1<<5 | 1<<3, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0xc3, 0x50, 0, 0, 0xea, 0x60, 0, 1, 0x11, 0x70}
	got := p.append(nil)
	if string(got) != string(want) {
		t.Fatalf("wrote % x, want % x", got, want)
	}
	back, err := parse(got)
	if err != nil || back != p {
		t.Errorf("read %+v, %v, want %+v", back, err, p)
	}
}

func TestDiscarded(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"nothing wrong", func(b []byte) []byte { return b }, nil},
		{"longer datagram", func(b []byte) []byte { return append(b, 0, 0) }, nil},
		{"short", func(b []byte) []byte { return b[:23] }, errShort},
		{"empty", func(b []byte) []byte { return nil }, errShort},
		{"version 0", func(b []byte) []byte { b[0] = 3; return b }, errVersion},
		{"version 2", func(b []byte) []byte { b[0] = 2<<5 | 3; return b }, errVersion},
		{"length too small", func(b []byte) []byte { b[3] = 23; return b }, errLength},
		{"length beyond the datagram", func(b []byte) []byte { b[3] = 26; return b }, errLength},
		{"multiplier 0", func(b []byte) []byte { b[2] = 0; return b }, errMultiplier},
		{"multipoint", func(b []byte) []byte { b[1] |= 1; return b }, errMultipoint},
		{"authenticated", func(b []byte) []byte { b[1] |= 4; return b }, errAuthenticated},
		{"no discriminator", func(b []byte) []byte { clear(b[4:8]); return b }, errDiscriminator},
		{"init to nobody", func(b []byte) []byte { clear(b[8:12]); return b }, errNoSession},
		{"down to nobody", func(b []byte) []byte { clear(b[8:12]); b[1] = 1 << 6; return b }, nil},
		{"poll and final", func(b []byte) []byte { b[1] |= 1 << 4; return b }, errPollFinal},
	} {
		p := sample()
		if _, err := parse(c.change(p.append(nil))); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// FuzzParse: what is accepted is what is written again, and a session survives it in any state.
func FuzzParse(f *testing.F) {
	p := sample()
	f.Add(p.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		again, err := parse(p.append(nil))
		if err != nil || again != p {
			t.Fatalf("%+v was read again as %+v, %v", p, again, err)
		}
		now := time.Unix(0, 0)
		for _, state := range []State{AdminDown, Down, Init, Up} {
			s := newSession(1, DefaultTiming(), now)
			s.state = state
			s.receive(&p, now)
			s.elapse(now.Add(time.Hour))
			if s.wake(now).Before(now) && !s.due(now) {
				t.Fatalf("%v after %+v: wakes at once and for ever", state, p)
			}
		}
	})
}
