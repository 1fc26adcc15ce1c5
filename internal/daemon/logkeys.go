package daemon

// The keys of this package's log records.
const (
	logErr    = "err"
	logFrom   = "from"
	logTo     = "to"
	logObject = "object"
	logField  = "field"
	logText   = "text"
	logFile   = "file"
	logNode   = "node"

	logVersion   = "version"
	logBackend   = "backend"
	logDatastore = "datastore"
	logSocket    = "socket"
)
