package gobgp

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
)

// Log keys.
const (
	keyASN      = "as"
	keyRouterID = "routerID"
	keyPort     = "port"
	keyPeer     = "peer"
	keyAddress  = "address"
	keyError    = "error"
	keyGraceful = "gracefulRestart"
	keyKept     = "routesKept"
	keyPrefix   = "prefix"
	keyMessage  = "gobgp"
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
	attrPeer    = "Key"
	attrError   = "Error"
	attrCode    = "Code"
	attrSubcode = "Subcode"
)

// Enabled is asked several times per UPDATE. Dial errors are logged at debug level, so that is open until a session is up.
func (a *logAdapter) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || a.sess != nil && !a.sess.up.Load()
}

// Handle reads or passes on one record.
func (a *logAdapter) Handle(ctx context.Context, r slog.Record) error {
	switch r.Message {
	case msgDial:
		a.note("dial: " + lastPart(attr(r, attrError).String()))
	case msgSent:
		a.note("sent: " + notification(octet(r, attrCode), octet(r, attrSubcode)))
	case msgReceived:
		a.note("received: " + notification(octet(r, attrCode), octet(r, attrSubcode)))
	}
	switch {
	case r.Level >= slog.LevelError:
		a.pass(ctx, slog.LevelWarn, r)
	case r.Level >= slog.LevelWarn:
		a.pass(ctx, slog.LevelDebug, r)
	}
	return nil
}

func (a *logAdapter) note(text string) {
	if a.sess == nil {
		return
	}
	a.feed.mu.Lock()
	defer a.feed.mu.Unlock()
	if a.sess.peer.Password != "" && strings.HasPrefix(text, "dial: ") && strings.Contains(text, "timeout") {
		text += "; it may be that the peer's password is another one: a kernel drops such packets without an answer (RFC 2385 section 2.0)"
	}
	if a.sess.ended != "" && strings.HasPrefix(text, "sent: ") {
		text = a.sess.ended
	}
	if a.sess.lastError != text {
		a.sess.lastError = text
		a.feed.changed = true
		a.feed.kick()
	}
	a.sess.said = true
}

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

func octet(r slog.Record, key string) uint8 {
	if v := attr(r, key); v.Kind() == slog.KindInt64 {
		return uint8(v.Int64())
	}
	return 0
}
