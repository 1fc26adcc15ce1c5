package main

import "testing"

func TestParseTable(t *testing.T) {
	for text, want := range map[string]table{"1000": {1, 1000}, "100x10": {100, 10}, "1x2": {1, 2}} {
		if got, err := parseTable(text); got != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1", "x", "0x10", "201x10", "10x1", "200x2000", "-1x-10", "1000 "} {
		if got, err := parseTable(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

// TestPeersHaveAddressesOfTheirOwn: none is the router's or that of the next hop that is moved to.
func TestPeersHaveAddressesOfTheirOwn(t *testing.T) {
	seen := map[any]bool{routerAddr: true, otherHop: true}
	for k := range maxPeers {
		if a := peerAddr(k); seen[a] {
			t.Fatalf("peer %d has %v, which is taken", k, a)
		} else {
			seen[a] = true
		}
	}
}
