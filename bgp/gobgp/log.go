package gobgp

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/caracal-net/caracal/bgp"
)

// Log keys.
const (
	keyASN      = "as"
	keyRouterID = "routerID"
	keyPort     = "port"
	keyPeer     = "peer"
	keyAddress  = "address"
	keyError    = "error"
	keyState    = "state"
	keyGraceful = "gracefulRestart"
	keyKept     = "routesKept"
	keyPrefix   = "prefix"
	keyMessage  = "gobgp"
	keyLimit    = "maxPrefixes"
	keyPause    = "triedAgainAfter"
)

// logAdapter is the slog.Handler that GoBGP writes to. GoBGP logs at length what sessions do, which we say ourselves once per
// change; so its warnings are passed on at debug level, its errors as warnings, and the rest is dropped. Three messages are
// read: they say what no event says. A new version that words them otherwise loses only PeerStatus.LastError, and the
// tests notice.
type logAdapter struct {
	feed *feed
	out  *slog.Logger
	peer netip.Addr
	sess *session // of peer, as of when GoBGP made this logger
}

// The messages that are read, and their attributes (GoBGP v4.8.0, pkg/server/fsm.go).
const (
	msgDial     = "failed to connect"
	msgSent     = "sent notification"
	msgReceived = "received notification"
	msgStop     = "failed to stop BGP server" // pkg/server/server.go
	msgUpdate   = "received update"           // pkg/server/peer.go, before the UPDATE is worked off
	attrPeer    = "Key"
	attrError   = "Error"
	attrCode    = "Code"
	attrSubcode = "Subcode"
	attrData    = "Data"
	attrReason  = "Communicated-Reason"
)

// Enabled is asked several times per UPDATE. Dial errors are logged at debug level, so that is open until a session is up; and so is, while we lag behind,
// what comes with each UPDATE.
func (a *logAdapter) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || a.sess != nil && (!a.sess.up.Load() || a.feed.lag.behind(time.Now()))
}

// Handle reads or passes on one record.
func (a *logAdapter) Handle(ctx context.Context, r slog.Record) error {
	switch r.Message {
	case msgUpdate:
		a.feed.lag.wait()
	case msgDial:
		a.dialFailed(attr(r, attrError).String())
	case msgSent:
		a.notified(true, notificationOf(r))
	case msgStop:
		return nil // its Stop asks for what halt has asked for, and reported, before
	case msgReceived:
		a.notified(false, notificationOf(r))
	}
	switch {
	case r.Level >= slog.LevelError:
		a.pass(ctx, slog.LevelWarn, r)
	case r.Level >= slog.LevelWarn:
		a.pass(ctx, slog.LevelDebug, r)
	}
	return nil
}

// dialFailed files why a connection could not be made.
func (a *logAdapter) dialFailed(text string) {
	a.file(func(s *session) {
		text := lastPart(text)
		cause := causeOf(text)
		if cause == bgp.CauseUnanswered && s.peer.Password != "" {
			text += "; it may be that the peer's password is another one: a kernel drops such packets without an answer (RFC 2385 section 2.0)"
		}
		s.fail("dial: "+text, cause)
	})
}

// causeOf reads the kernel's words for why a connection could not be made.
func causeOf(text string) bgp.Cause {
	switch {
	case strings.Contains(text, "connection refused"):
		return bgp.CauseRefused
	case strings.Contains(text, "no route to host"), strings.Contains(text, "network is unreachable"):
		return bgp.CauseUnreachable
	case strings.Contains(text, "timeout"), strings.Contains(text, "timed out"):
		return bgp.CauseUnanswered
	case strings.Contains(text, "cannot assign requested address"):
		return bgp.CauseNoAddress
	}
	return bgp.CauseUnknown
}

// notified files a NOTIFICATION. What we have ended the session for ourselves is the better word for the one that says it.
func (a *logAdapter) notified(sent bool, n bgp.Notification) {
	a.file(func(s *session) {
		switch {
		case !sent:
			s.note(&s.got, bgp.CauseReceived, n)
		case s.ended != "":
			s.note(&s.sent, bgp.CauseSent, n)
			s.fail(s.ended, bgp.CauseUnknown)
		default:
			s.note(&s.sent, bgp.CauseSent, n)
		}
	})
}

// file changes what is known of the session, and reports it where people would read something else.
func (a *logAdapter) file(change func(*session)) {
	if a.sess == nil {
		return
	}
	a.feed.mu.Lock()
	defer a.feed.mu.Unlock()
	was := a.sess.lastError
	change(a.sess)
	if a.sess.lastError != was {
		a.feed.changed = true
		a.feed.kick()
	}
	a.sess.said = true
}

// notificationOf reads a NOTIFICATION from GoBGP's record of it. The words of a Cease are decoded there, but not those inside a Hard Reset.
func notificationOf(r slog.Record) bgp.Notification {
	n := bgp.Notification{Code: octet(r, attrCode), Subcode: octet(r, attrSubcode), At: r.Time}
	if v := attr(r, attrReason); v.Kind() == slog.KindString {
		n.Reason = words(v.String())
	}
	data, _ := attr(r, attrData).Any().([]byte)
	if n.Code == bgp.CodeCease && n.Subcode == bgp.SubHardReset && len(data) >= 2 && data[0] <= lastCode && data[1] < ' ' {
		n.InnerCode, n.InnerSubcode = data[0], data[1]
		data = data[2:]
	}
	if n.Is(bgp.CodeCease, bgp.SubAdminShutdown) || n.Is(bgp.CodeCease, subAdminReset) || n.Subcode == bgp.SubHardReset {
		if n.Reason == "" && len(data) > 0 && int(data[0]) <= len(data)-1 {
			n.Reason = words(string(data[1 : 1+data[0]]))
		}
	}
	return n
}

const (
	lastCode      = 7 // the highest error code there is (RFC 7313)
	subAdminReset = 4 // of Cease
)

// words makes text of a peer's fit for a line: valid UTF-8 without control characters, and not long.
func words(s string) string {
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(clean) > maxWords {
		clean = strings.ToValidUTF8(clean[:maxWords], "")
	}
	return strings.TrimSpace(clean)
}

// maxWords is the longest Shutdown Communication in octets (RFC 9003 section 2).
const maxWords = 255

func (a *logAdapter) pass(ctx context.Context, level slog.Level, r slog.Record) {
	if !a.out.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String(keyMessage, r.Message)}
	if a.peer.IsValid() {
		attrs = append(attrs, slog.Any(keyAddress, a.peer))
	}
	r.Attrs(func(at slog.Attr) bool { attrs = append(attrs, at); return true })
	a.out.LogAttrs(ctx, level, "BGP engine", attrs...)
}

// WithAttrs is called once per peer with its address.
func (a *logAdapter) WithAttrs(attrs []slog.Attr) slog.Handler {
	b := *a
	for _, at := range attrs {
		if at.Key != attrPeer {
			continue
		}
		if addr, err := netip.ParseAddr(at.Value.String()); err == nil {
			b.peer, b.sess = addr, a.feed.session(addr)
		}
	}
	return &b
}

// WithGroup is not used by GoBGP.
func (a *logAdapter) WithGroup(string) slog.Handler { return a }

// lastPart returns what is left of a network error without operation and addresses: "connection refused".
func lastPart(text string) string {
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}

func attr(r slog.Record, key string) slog.Value {
	var v slog.Value
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == key {
			v = a.Value
			return false
		}
		return true
	})
	return v
}

// octet reads a number; 0 where there is none.
func octet(r slog.Record, key string) uint8 {
	if v := attr(r, key); v.Kind() == slog.KindInt64 {
		return uint8(v.Int64())
	}
	return 0
}
