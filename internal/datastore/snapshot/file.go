package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

const (
	magic   = "CARACALS"
	version = 1 // raised when a field of package cluster changes its meaning; new fields need no new version
	// maxSize is ten times the file of a cluster of 5,000 nodes and 20,000 blocks.
	maxSize = 64 << 20 // bytes
)

// header precedes the objects; all numbers are big-endian.
type header struct {
	Magic   [8]byte
	Version uint32
	Seconds int64 // Unix time of the State
	Length  uint64
	Sum     [sha256.Size]byte
}

// content is what is kept.
type content struct {
	Node    string
	Objects cluster.Objects
}

// The reasons not to use a file.
var (
	errDamaged = errors.New("it is damaged")
	errVersion = errors.New("it was written by another version")
	errAge     = errors.New("it is too old")
	errNode    = errors.New("it is another node's")
	errFuture  = errors.New("it is of the future: the clock has gone back")
)

// encode returns the whole file.
func encode(c *content, at time.Time) ([]byte, error) {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(c); err != nil {
		return nil, err
	}
	if body.Len() > maxSize {
		return nil, fmt.Errorf("%d bytes are more than the %d that are kept", body.Len(), maxSize)
	}
	h := header{Version: version, Seconds: at.Unix(), Length: uint64(body.Len()), Sum: sha256.Sum256(body.Bytes())}
	copy(h.Magic[:], magic)
	out, err := binary.Append(nil, binary.BigEndian, &h)
	return append(out, body.Bytes()...), err
}

// decode reads a file of this node that is no older than maxAge.
func decode(r io.Reader, node string, now time.Time, maxAge time.Duration) (*content, time.Time, error) {
	var h header
	if err := binary.Read(r, binary.BigEndian, &h); err != nil || string(h.Magic[:]) != magic || h.Length > maxSize {
		return nil, time.Time{}, errDamaged
	}
	if h.Version != version {
		return nil, time.Time{}, errVersion
	}
	at := time.Unix(h.Seconds, 0)
	switch age := now.Sub(at); {
	case age > maxAge:
		return nil, at, fmt.Errorf("%w: %v", errAge, age.Round(time.Second))
	case age < -time.Hour: // a little of that is a clock that is being set
		return nil, at, errFuture
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(h.Length)+1))
	if err != nil || uint64(len(body)) != h.Length || sha256.Sum256(body) != h.Sum {
		return nil, at, errDamaged
	}
	c := &content{}
	if err := gob.NewDecoder(bytes.NewReader(body)).Decode(c); err != nil {
		return nil, at, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if c.Node != node {
		return nil, at, fmt.Errorf("%w: %q", errNode, c.Node)
	}
	return c, at, nil
}

// store writes the file, whole or not at all.
func store(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".snapshot-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
