package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	all, err := Pick("all")
	if err != nil || len(all) != len(Scenarios()) || len(all) == 0 {
		t.Errorf("all gives %d scenarios of %d, %v", len(all), len(Scenarios()), err)
	}
	if two, err := Pick("kill", "backend"); err != nil || len(two) != 2 || two[0].Name != "kill" || two[1].Name != "backend" {
		t.Errorf("got %v, %v; want kill and backend", two, err)
	}
	if _, err := Pick("kill", "tilt"); err == nil || !strings.Contains(err.Error(), `"tilt"`) {
		t.Errorf("error %v, want one that names tilt", err)
	}
	seen := map[string]bool{}
	for _, s := range all {
		if seen[s.Name] || s.Summary == "" || s.run == nil {
			t.Errorf("scenario %q: twice, or not whole", s.Name)
		}
		seen[s.Name] = true
	}
}

func TestScenarioSaysWhyItDoesNotFit(t *testing.T) {
	if ok, why := encapsulated(Spec{Mode: NoEncapsulation, Nodes: 3}); ok || why == "" {
		t.Error("the backend scenario is said to fit a cluster without encapsulation")
	}
}

func TestListens(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0B0200C0:00B3 0C0200C0:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1
`
	if listens(table, bgpPort) {
		t.Error("an established connection counts as a listener")
	}
	if !listens(table, 8080) || !listens(strings.Replace(table, ":00B3 0C0200C0:C350 01", ":00B3 00000000:0000 0A", 1), bgpPort) {
		t.Error("a listener is not seen")
	}
}

// TestDrivelIsWhatItClaims checks that garbage is bad in the way it is meant to be: framed correctly where only the content is bad.
func TestDrivelIsWhatItClaims(t *testing.T) {
	all := drivel()
	crash := all[0]
	var kinds []byte
	for rest := crash; len(rest) > 0; {
		if len(rest) < 19 {
			t.Fatalf("%d bytes are left over", len(rest))
		}
		n := int(binary.BigEndian.Uint16(rest[16:]))
		if n < 19 || n > len(rest) {
			t.Fatalf("length %d with %d bytes left", n, len(rest))
		}
		kinds = append(kinds, rest[18])
		rest = rest[n:]
	}
	if string(kinds) != string([]byte{bgpOpenType, bgpKeepaliveType, bgpUpdateType}) {
		t.Errorf("messages of types %v, want an opening, a keepalive and an UPDATE", kinds)
	}
	body := crash[len(crash)-len(updateBody())-4-7-9-7:]
	var order []byte
	for a := body[4 : len(body)-4]; len(a) > 0; a = a[3+int(a[2]):] {
		order = append(order, a[1])
	}
	if string(order) != string([]byte{1, 3, 17, 2}) {
		t.Errorf("attributes %v, want ORIGIN, NEXT_HOP, AS4_PATH, AS_PATH", order)
	}
}

func TestProcessIsToldFromItsSuccessor(t *testing.T) {
	self, ok := processOf(os.Getpid())
	if !ok || !self.alive() {
		t.Fatalf("this process is not alive: %+v", self)
	}
	if other := (process{self.PID, self.Start + 1}); other.alive() {
		t.Error("a process of the same number and another start is taken for alive")
	}
	path := t.TempDir() + "/pid"
	if err := self.write(path); err != nil || readProcess(path) != self {
		t.Errorf("read back %+v, %v; wrote %+v", readProcess(path), err, self)
	}
	if (process{}).alive() || readProcess(path+".none").alive() {
		t.Error("no process is taken for alive")
	}
	// A zombie is gone, as far as the lab is concerned.
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := poll(ctx, time.Millisecond, func() error {
		if _, ok := processOf(cmd.Process.Pid); ok {
			return errors.New("still running")
		}
		return nil
	}); err != nil {
		t.Error("a zombie counts as running")
	}
	_ = cmd.Wait()
}

func TestPollSaysWhatWasMissing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	err := poll(ctx, time.Millisecond, func() error { return errors.New("the moon is not full") })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "moon") {
		t.Errorf("error %v, want the deadline and what was missing", err)
	}
}
