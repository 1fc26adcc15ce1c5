// Command benchfib measures how fast what BGP brings reaches the kernel: caracald, BIRD 2 and FRR, each alone in a namespace, with one
// injector of ours in a neighbour namespace: tables of one peer or of a hundred, loaded, moved to another next hop and withdrawn, single
// changes, memory and processor time.
//
// The clock starts with the first octet of the first UPDATE and is stopped by the kernel's own route notifications, which one
// listener of ours reads in the router's namespace, the same for everybody. What a chain costs that does nothing but what
// must be done is measured too: TCP and parsing alone, the kernel's writes alone, and both; and our route programmer alone, to which
// the same prefixes are told in one change.
//
// Nothing of it is in the host's namespace, every wait has an end, and what was started is ended also when the program is told to stop.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/test/peers"
)

func main() {
	o := options{}
	flag.StringVar(&o.daemon, "caracald", "bin/caracald", "the daemon to measure")
	flag.IntVar(&o.runs, "runs", 2, "how often each measurement is made; best and median are printed")
	flag.IntVar(&o.changes, "changes", 200, "how many single changes are made, with nothing behind them and with the largest table")
	flag.DurationVar(&o.idle, "idle", 10*time.Second, "how long CPU use at rest is measured, once a system; 0 = not")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "when to give up")
	flag.StringVar(&o.profile, "perf", "", "a directory: perf(1) records what caracald does meanwhile there")
	tables := flag.String("tables", "1000,10000,100000", "how many prefixes are announced, by one peer or (100x1000) by each of several")
	flag.BoolVar(&o.loadOnly, "load-only", false, "announce once and nothing else, for profiles")
	only := flag.String("only", "", "measure these alone: caracald,bird2,frr,read,write,bare,programmer")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, o.limit)
	defer stop()
	err := o.parse(*tables, *only)
	if err == nil {
		err = run(ctx, &o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchfib:", err)
		os.Exit(1)
	}
}

type options struct {
	daemon   string
	runs     int
	changes  int
	idle     time.Duration
	limit    time.Duration
	profile  string
	loadOnly bool
	tables   []table
	only     map[string]bool
}

// table is what is announced: so many prefixes by each of so many peers.
type table struct{ peers, each int }

func (t table) size() int { return t.peers * t.each }

func (t table) String() string {
	if t.peers == 1 {
		return strconv.Itoa(t.each)
	}
	return fmt.Sprintf("%d x %d", t.peers, t.each)
}

func parseTable(s string) (t table, err error) {
	first, second, several := strings.Cut(s, "x")
	if !several {
		first, second = "1", s
	}
	t.peers, err = strconv.Atoi(first)
	if err == nil {
		t.each, err = strconv.Atoi(second)
	}
	if err != nil || t.peers < 1 || t.peers > maxPeers || t.each < 2 || t.size() > maxPrefixes {
		return t, fmt.Errorf("-tables: %q: want PREFIXES or PEERSxPREFIXES, up to %d peers, from 2 to %d prefixes in all", s, maxPeers, maxPrefixes)
	}
	return t, nil
}

func (o *options) parse(tables, only string) (err error) {
	for s := range strings.SplitSeq(tables, ",") {
		t, err := parseTable(s)
		if err != nil {
			return err
		}
		o.tables = append(o.tables, t)
	}
	if only != "" {
		o.only = map[string]bool{}
		for s := range strings.SplitSeq(only, ",") {
			o.only[s] = true
		}
	}
	o.daemon, err = filepath.Abs(o.daemon)
	return err
}

// run measures everything and prints the tables. Within a run the systems take turns, so that a slower machine is
// slower for all of them.
func run(ctx context.Context, o *options) error {
	subjects := []subject{daemonSubject{o}, routerSubject{peers.BIRD2}, routerSubject{peers.FRR}}
	floors := []subject{readSubject{}, writeSubject{}, bareSubject{}, programmerSubject{}}
	results := results{}
	for _, t := range o.tables {
		for i := range o.runs {
			for _, s := range append(floors, subjects...) {
				if o.only != nil && !o.only[s.name()] || t.peers > 1 && isFloor(s) {
					continue
				}
				if what := s.missing(); what != "" {
					results.skip(s.name(), what)
					continue
				}
				m := measurement{options: o, subject: s, table: t, n: t.size(), deep: t == o.largest(), bare: t == o.tables[0], last: i == o.runs-1}
				f, err := m.run(ctx)
				if err != nil {
					return fmt.Errorf("%s, %s prefixes: %w", s.name(), t, err)
				}
				results.add(s.name(), t, f)
			}
		}
	}
	if len(results.order) == 0 {
		return errors.New("nothing was measured")
	}
	results.print(os.Stdout, o)
	return nil
}

// largest is the table behind which single changes are measured, and memory and processor at rest.
func (o *options) largest() table {
	return slices.MaxFunc(o.tables, func(a, b table) int { return a.size() - b.size() })
}

func isFloor(s subject) bool {
	switch s.(type) {
	case readSubject, writeSubject, bareSubject, programmerSubject:
		return true
	}
	return false
}

// The prefixes are blocks as Calico makes them, from the beginning of 10.0.0.0/8.
const (
	maxPrefixes = 1 << 18
	blockBits   = 26
)

func prefix(i int) netip.Prefix {
	a := uint32(10)<<24 | uint32(i)<<(32-blockBits)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), blockBits)
}

func prefixes(from, n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		out[i] = prefix(from + i)
	}
	return out
}
