package file

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// The environment of a process that TestManyProcesses starts: its directory and its number.
const (
	envDir    = "CARACAL_TEST_FILE_DIR"
	envNumber = "CARACAL_TEST_FILE_NUMBER"
)

const (
	processes  = 5
	goroutines = 4
	increments = 12
)

// TestManyProcesses has several daemons' worth of writers and watchers on one directory: no increment is lost, nobody
// sees half a file, an object vanish, or a count go back.
func TestManyProcesses(t *testing.T) {
	dir := t.TempDir()
	var nodes strings.Builder
	for i := range processes {
		nodes.WriteString(nodeDoc(fmt.Sprint("n", i), 1) + "---\n")
	}
	put(t, dir, "all.yaml", nodes.String()+nodeDoc("counter", 1000))
	o := observe(t, open(t, dir))
	o.until("the counter", asn("counter", 1000))
	var wg sync.WaitGroup
	for i := range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcess$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), envDir+"="+dir, envNumber+"="+strconv.Itoa(i))
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("process %d: %v\n%s", i, err, out)
			}
		})
	}
	wg.Wait()
	total := processes * goroutines * increments
	o.until("every increment", asn("counter", uint32(1000+total)))
	for i := range processes {
		want := netip.AddrFrom4([4]byte{10, byte(i), 0, increments})
		if n := get[*calico.Node](t, open(t, dir), calico.KindNode, fmt.Sprint("n", i)); n.Spec.IPv4VXLANTunnelAddr != want.String() {
			t.Errorf("%s has %s, want %s", n.Name, n.Spec.IPv4VXLANTunnelAddr, want)
		}
	}
	o.checkCounter()
	if h := get[*calico.IPAMHandle](t, open(t, dir), calico.KindIPAMHandle, "shared"); h.Spec.Block["total"] != total {
		t.Errorf("%d of %d increments", h.Spec.Block["total"], total)
	}
}

// checkCounter checks that no update lacked a node, had a problem or took the counter back.
func (o *observer) checkCounter() {
	o.t.Helper()
	last := uint32(0)
	o.every("in order", func(u datastore.Update) bool {
		n := u.State.Node("counter")
		ok := n != nil && n.ASN >= last && len(u.State.Nodes()) == processes+1 && len(u.State.Problems()) == 0 && u.Err == nil
		if n != nil {
			last = n.ASN
		}
		return ok
	})
}

// TestProcess is one of the processes.
func TestProcess(t *testing.T) {
	dir := os.Getenv(envDir)
	if dir == "" {
		t.Skip("is started by TestManyProcesses only: " + envDir + " is not set")
	}
	s := open(t, dir)
	o := observe(t, s)
	number, err := strconv.Atoi(os.Getenv(envNumber))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Create(t.Context(), &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: "shared"}})
	if err != nil && !errors.Is(err, datastore.ErrExists) {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range increments {
				if err := step(t.Context(), s, number, g, i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	o.checkCounter()
}

// step increments both counters, and lets one goroutine count in the tunnel address of the process's node.
func step(ctx context.Context, s *Store, number, g, i int) error {
	if g == 0 {
		addr := netip.AddrFrom4([4]byte{10, byte(number), 0, byte(i + 1)})
		if err := s.PatchNode(ctx, fmt.Sprint("n", number), datastore.NodePatch{VXLANAddr4: &addr}); err != nil {
			return err
		}
	}
	err := retry(ctx, s, calico.KindNode, "counter", func(o calico.Object) { *o.(*calico.Node).Spec.BGP.ASNumber++ })
	if err != nil {
		return err
	}
	return retry(ctx, s, calico.KindIPAMHandle, "shared", func(o calico.Object) {
		h := o.(*calico.IPAMHandle)
		if h.Spec.Block == nil {
			h.Spec.Block = map[string]int{}
		}
		h.Spec.Block["total"]++
	})
}

func retry(ctx context.Context, s *Store, kind calico.Kind, name string, change func(calico.Object)) error {
	for {
		o, err := s.Get(ctx, kind, name)
		if err != nil {
			return err
		}
		change(o)
		if _, err = s.Update(ctx, o); !errors.Is(err, datastore.ErrConflict) {
			return err
		}
	}
}
