package matrix

import (
	"flag"
	"os"
	"testing"

	"github.com/caracal-net/caracal/test/need"
)

var caracald need.Daemon

// atOnce is how many cells run at a time. They wait most of theirs.
const atOnce = "40"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	code := m.Run()
	caracald.Remove()
	os.Exit(code)
}
