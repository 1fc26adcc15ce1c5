package routes

import (
	"log/slog"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Options say what a Programmer works on.
type Options struct {
	Kernel kernel.Kernel // not closed by the Programmer
	Log    *slog.Logger  // nil = slog.Default()
	// ResyncInterval is the mean time between full reads of the kernel when nothing seems wrong; 0 means never. Each
	// turn varies by a tenth, so that the nodes of a cluster do not work in step. Daemon default: DefaultResyncInterval.
	ResyncInterval time.Duration
	// Settings: forwarding of the namespace, once something of the family is wanted, and forwarding and reverse path filter of our tunnel devices
	// are kept as routing needs them.
	Settings bool
	// NexthopObjects: routes with gateways lead to nexthop objects where the kernel has them, so that a way out that changes for many routes is one
	// write. Off, or where it has none, every route has next hops of its own.
	NexthopObjects bool
	// Adopt says whose leftovers are taken over as if they were ours, within the destinations that Within names.
	Adopt Adoption
	// BesideFelix says that a Felix runs on this host: the devices with its names are not touched.
	BesideFelix bool
}

// DefaultResyncInterval is a safety net only: drift is repaired from events (Felix's routeRefreshInterval is 90 s and
// is its only repair). With 100,000 routes a read takes some hundredths of a second (BenchmarkAudit).
const DefaultResyncInterval = time.Minute

// Keys of log attributes.
const (
	logRoute     = "route"
	logOwner     = "owner"
	logError     = "error"
	logDetail    = "detail"
	logDevice    = "device"
	logAddress   = "address"
	logNeighbour = "neighbour"
	logCount     = "count"
	logReason    = "reason"
	logAttempts  = "attempts"
	logPart      = "part"
	logNexthop   = "nexthop"
	logSetting   = "setting"
	logValue     = "value"
	logProgram   = "program"
	logAgain     = "again_in"
)

// The pace of the Programmer. None of these delays a first attempt.
const (
	// batchSize is how many routes go to the kernel in one call: long enough to spread the cost of the call, short
	// enough (some 5 ms) that a change that comes meanwhile does not wait long.
	batchSize = 2048
	// eventsPerPass bounds how long events can keep the Programmer from writing.
	eventsPerPass = 1 << 14
	// retryFirst and retryMost bound the back-off of one item that the kernel refuses.
	retryFirst = 100 * time.Millisecond
	retryMost  = 30 * time.Second
	// readRetryFirst and readRetryMost bound the back-off of reads and of whole batches that fail; the first
	// attempt after a failure is made at once.
	readRetryFirst = 10 * time.Millisecond
	readRetryMost  = time.Second
	// patientReads is how many failed reads of the nexthop objects routes wait for; then they do without.
	patientReads = 3
	// interruptedDumps is how often a dump that a change has interrupted is begun again at once (Felix: five).
	interruptedDumps = 5
	// freeRepairs is how often an object that somebody removes is repaired at once within calmAfter; each further
	// repair waits twice as long as the one before, from fightFirst to fightMost.
	freeRepairs = 3
	calmAfter   = 10 * time.Second
	fightFirst  = 10 * time.Millisecond
	fightMost   = 5 * time.Second
	// oneAct is within what time the kernel tells all of what one act did to a device.
	oneAct = 3 * time.Millisecond
	// echoPatience is how long an event that contradicts a write of ours waits for the echo of that write, which
	// would prove it older than the write.
	echoPatience = 20 * time.Millisecond
	// echoBacklog is how many times that it waits where other events are still to be heard.
	echoBacklog = 50
	// settleTime is how long a device that we made may take to show up in the events before the links are read.
	settleTime = time.Second
	// wakeSpacing and wakePerRoute space the wholesale retries of refused routes after changes of links, addresses
	// or foreign routes.
	wakeSpacing  = 100 * time.Millisecond
	wakePerRoute = 50 * time.Microsecond
	// readShare bounds reads that are made to clear up doubt to a share of the time: one in readShare.
	readShare = 10
	// publishShare does the same for pictures of the host, up to publishMost.
	publishShare = 10
	publishMost  = time.Second
)
