package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// procSys is where procfs shows the sysctls of the namespace of the thread that opens them (net_ctl_header_lookup), so each file
// is opened inside the handle's namespace.
const procSys = "/proc/sys"

// ReadSysctl reads one number.
func (k *linux) ReadSysctl(ctx context.Context, name Sysctl) (value int, err error) {
	err = k.sysctl(ctx, name, func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		value, err = strconv.Atoi(string(bytes.TrimSpace(b)))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return value, nil
}

// WriteSysctl sets one number.
func (k *linux) WriteSysctl(ctx context.Context, name Sysctl, value int) error {
	err := k.sysctl(ctx, name, func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(strconv.Itoa(value))
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return fmt.Errorf("write sysctl %s to %d: %w", name, value, err)
	}
	return nil
}

func (k *linux) sysctl(ctx context.Context, name Sysctl, do func(path string) error) error {
	if err := k.usable(ctx); err != nil {
		return err
	}
	if err := name.Check(); err != nil {
		return err
	}
	return classify(k.inside(func() error { return do(filepath.Join(k.opts.ProcSys, string(name))) }))
}

// ListNetconf dumps the settings of all interfaces of one family.
func (k *linux) ListNetconf(ctx context.Context, v6 bool, yield func(Netconf) bool) error {
	s, err := k.socket()
	if err != nil {
		return fmt.Errorf("list settings of interfaces: %w", err)
	}
	defer s.close()
	// A kernel with strict checking wants the whole header (struct netconfmsg is one byte, aligned).
	req := append(begin(nil, unix.RTM_GETNETCONF, unix.NLM_F_DUMP), family(v6), 0, 0, 0)
	err = s.dump(ctx, req, func(m message) bool {
		c, ok := parseNetconf(m.payload)
		return m.typ != unix.RTM_NEWNETCONF || !ok || c.V6 != v6 || yield(c)
	})
	if err != nil {
		return fmt.Errorf("list settings of interfaces: %w", err)
	}
	return nil
}

// Attributes of RTM_NEWNETCONF (linux/netconf.h).
const (
	netconfaIfindex    = 1
	netconfaForwarding = 2
	netconfaRPFilter   = 3
	sizeofNetconfmsg   = 1
)

// parseNetconf reads an RTM_NEWNETCONF or RTM_DELNETCONF. Of a message that says nothing of an interface, ok is false.
func parseNetconf(payload []byte) (c Netconf, ok bool) {
	if len(payload) < align(sizeofNetconfmsg) {
		return c, false
	}
	if _, ok := unspecified(payload[0]); !ok {
		return c, false
	}
	c = Netconf{V6: payload[0] == unix.AF_INET6, Forwarding: Unsaid, RPFilter: Unsaid}
	for rest := payload[align(sizeofNetconfmsg):]; len(rest) > 0; {
		a, more, ok := nextAttr(rest)
		if !ok || len(a.value) < 4 {
			return c, false
		}
		value := int32(binary.NativeEndian.Uint32(a.value))
		switch a.typ {
		case netconfaIfindex:
			c.Link = int(value)
		case netconfaForwarding:
			c.Forwarding = int8(min(max(value, 0), 1))
		case netconfaRPFilter:
			c.RPFilter = int8(min(max(value, 0), RPFilterLoose))
		}
		rest = more
	}
	return c, c.Link != 0
}
