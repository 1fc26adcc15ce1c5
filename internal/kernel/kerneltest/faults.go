package kerneltest

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Kind is a way in which the kernel can fail.
type Kind string

// The kinds of faults. "Call" counts calls of the method, "operation" counts elements over all batches.
const (
	// RouteOpFails: the n-th route operation reports Err and is not done.
	RouteOpFails Kind = "route-op-fails"
	// RouteBatchBreaks: WriteRoutes ends with Err at the n-th operation; those before are done, it and the rest are not.
	RouteBatchBreaks Kind = "route-batch-breaks"
	// RouteAcksLost: WriteRoutes does the whole batch, but from the n-th operation on nothing is reported, and ends with Err.
	RouteAcksLost Kind = "route-acks-lost"
	// ListRoutesFails: the n-th dump fails with Err before it yields anything.
	ListRoutesFails Kind = "list-routes-fails"
	// ListRoutesBreaks: the n-th dump fails with Err after it has yielded half of the routes.
	ListRoutesBreaks Kind = "list-routes-breaks"
	// NeighbourOpFails: the n-th neighbour operation reports Err and is not done.
	NeighbourOpFails Kind = "neighbour-op-fails"
	// NeighbourBatchBreaks: WriteNeighbours ends with Err at the n-th operation; those before are done, it and the rest are not.
	NeighbourBatchBreaks Kind = "neighbour-batch-breaks"
	// EventsLost: the n-th event and those after it that make up Times are not delivered; EventLost comes in their place.
	EventsLost Kind = "events-lost"

	// The n-th call fails with Err and does nothing.
	ListLinksFails      Kind = "list-links-fails"
	CreateLinkFails     Kind = "create-link-fails"
	DeleteLinkFails     Kind = "delete-link-fails"
	SetLinkFails        Kind = "set-link-fails"
	ListAddressesFails  Kind = "list-addresses-fails"
	AddAddressFails     Kind = "add-address-fails"
	DeleteAddressFails  Kind = "delete-address-fails"
	ListNeighboursFails Kind = "list-neighbours-fails"
	LookupFails         Kind = "lookup-fails"
	WatchFails          Kind = "watch-fails"
)

// The kinds of faults of nexthop objects and settings (NexthopFaults, SysctlFaults).
const (
	// NexthopOpFails: the n-th operation reports Err and is not done.
	NexthopOpFails Kind = "nexthop-op-fails"
	// NexthopBatchBreaks: WriteNexthops ends with Err at the n-th operation; those before are done, it and the rest are not.
	NexthopBatchBreaks Kind = "nexthop-batch-breaks"
	// NexthopAcksLost: WriteNexthops does the whole batch, but from the n-th operation on nothing is reported, and ends with Err.
	NexthopAcksLost Kind = "nexthop-acks-lost"
	// ListNexthopsFails: the n-th dump fails with Err before it yields anything.
	ListNexthopsFails Kind = "list-nexthops-fails"
	// ListNexthopsBreaks: the n-th dump fails with Err after it has yielded half of the objects.
	ListNexthopsBreaks Kind = "list-nexthops-breaks"

	// The n-th call fails with Err and does nothing.
	ReadSysctlFails  Kind = "read-sysctl-fails"
	WriteSysctlFails Kind = "write-sysctl-fails"
	ListNetconfFails Kind = "list-netconf-fails"
)

// Fault is one planned failure.
type Fault struct {
	Kind  Kind
	Nth   int   // counted from the injection, 1 (or 0) = the next
	Times int   // how many in a row, 0 reads as 1
	Err   error // nil reads as what is usual for the kind
}

// String names the fault as a subtest.
func (f Fault) String() string {
	name := string(f.Kind)
	if f.Err != nil {
		name += "/" + shortName(f.Err)
	}
	if f.Nth > 1 {
		name += fmt.Sprintf("/nth=%d", f.Nth)
	}
	if f.Times > 1 {
		name += fmt.Sprintf("/times=%d", f.Times)
	}
	return name
}

func shortName(err error) string {
	if refusal, ok := err.(*kernel.Refusal); ok {
		if name, ok := errnoNames()[refusal.Errno]; ok {
			return name
		}
	}
	return err.Error()
}

func errnoNames() map[syscall.Errno]string {
	return map[syscall.Errno]string{
		syscall.EEXIST: "EEXIST", syscall.ESRCH: "ESRCH", syscall.ENODEV: "ENODEV", syscall.ENETUNREACH: "ENETUNREACH",
		syscall.EHOSTUNREACH: "EHOSTUNREACH", syscall.ENETDOWN: "ENETDOWN", syscall.ENOBUFS: "ENOBUFS", syscall.EINTR: "EINTR",
		syscall.EINVAL: "EINVAL", syscall.EOPNOTSUPP: "EOPNOTSUPP", syscall.ENOMEM: "ENOMEM", syscall.EBUSY: "EBUSY",
		syscall.ENOENT: "ENOENT", syscall.ETIMEDOUT: "ETIMEDOUT", syscall.EROFS: "EROFS", syscall.EACCES: "EACCES",
	}
}

// faults is a list of faults that are each due at the next occasion.
type faults []Fault

func (all *faults) add(kind Kind, errnos ...syscall.Errno) {
	for _, e := range errnos {
		*all = append(*all, Fault{Kind: kind, Nth: 1, Times: 1, Err: kernel.FromErrno(e)})
	}
}

// NexthopFaults are the faults that only a user of nexthop objects meets, as Faults gives them.
func NexthopFaults() []Fault {
	var all faults
	all.add(NexthopOpFails, syscall.EEXIST, syscall.ENOENT, syscall.EINVAL, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN,
		syscall.EOPNOTSUPP, syscall.ENOMEM, syscall.EBUSY)
	all.add(NexthopBatchBreaks, syscall.ENOBUFS, syscall.ETIMEDOUT)
	all.add(NexthopAcksLost, syscall.ENOBUFS, syscall.ETIMEDOUT)
	all.add(ListNexthopsFails, syscall.EBUSY, syscall.ENOMEM, syscall.EOPNOTSUPP)
	all.add(ListNexthopsBreaks, syscall.EINTR, syscall.ENOBUFS)
	noNexthop := &kernel.Refusal{Errno: syscall.EINVAL, Meaning: kernel.ErrNoNexthop}
	return append(all, Fault{Kind: RouteOpFails, Nth: 1, Times: 1, Err: noNexthop})
}

// SysctlFaults are the faults that only a user of settings meets, as Faults gives them.
func SysctlFaults() []Fault {
	var all faults
	all.add(ReadSysctlFails, syscall.ENOENT, syscall.EACCES)
	all.add(WriteSysctlFails, syscall.EROFS, syscall.EACCES, syscall.EINVAL)
	all.add(ListNetconfFails, syscall.EINTR, syscall.ENOMEM)
	return all
}

// Faults returns every kind of fault with every errno that the kernel gives there, each due at the next occasion, but for
// those of NexthopFaults and SysctlFaults. Tests run every scenario against each, shifting Nth as they like.
func Faults() []Fault {
	var all faults
	add := all.add
	add(RouteOpFails, syscall.EEXIST, syscall.ESRCH, syscall.ENODEV, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN,
		syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOMEM, syscall.EBUSY)
	add(RouteBatchBreaks, syscall.ENOBUFS, syscall.ETIMEDOUT)
	add(RouteAcksLost, syscall.ENOBUFS, syscall.ETIMEDOUT)
	add(ListRoutesFails, syscall.EBUSY, syscall.ENOMEM)
	add(ListRoutesBreaks, syscall.EINTR, syscall.ENOBUFS)
	add(NeighbourOpFails, syscall.ENOENT, syscall.ENODEV, syscall.ENETDOWN, syscall.EINVAL, syscall.ENOMEM)
	add(NeighbourBatchBreaks, syscall.ENOBUFS, syscall.ETIMEDOUT)
	add(EventsLost, syscall.ENOBUFS)
	add(ListLinksFails, syscall.EINTR, syscall.ENOMEM)
	add(CreateLinkFails, syscall.EEXIST, syscall.ENODEV, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOMEM)
	add(DeleteLinkFails, syscall.ENODEV, syscall.EBUSY)
	add(SetLinkFails, syscall.ENODEV, syscall.EINVAL, syscall.EBUSY)
	add(ListAddressesFails, syscall.EINTR, syscall.ENOMEM)
	add(AddAddressFails, syscall.EEXIST, syscall.ENODEV, syscall.ENOMEM)
	add(DeleteAddressFails, syscall.EADDRNOTAVAIL, syscall.ENODEV)
	add(ListNeighboursFails, syscall.EINTR, syscall.ENOMEM)
	add(LookupFails, syscall.ENETUNREACH, syscall.ETIMEDOUT)
	add(WatchFails, syscall.EMFILE, syscall.ENOMEM)
	return all
}

// Injected is a fault in the plan.
type Injected struct {
	fake  *Fake
	fault Fault
	seen  int
	fired int
}

// Fired says how often the fault has struck. A test whose fault never fired has shown nothing.
func (i *Injected) Fired() int {
	i.fake.mu.Lock()
	defer i.fake.mu.Unlock()
	return i.fired
}

// Remove takes the fault out of the plan.
func (i *Injected) Remove() {
	i.fake.mu.Lock()
	defer i.fake.mu.Unlock()
	for n, other := range i.fake.plan {
		if other == i {
			i.fake.plan = append(i.fake.plan[:n:n], i.fake.plan[n+1:]...)
			return
		}
	}
}

// Inject puts a fault into the plan. An unknown kind is a mistake in the test and panics.
func (f *Fake) Inject(fault Fault) *Injected {
	if fault.Nth == 0 {
		fault.Nth = 1
	}
	if fault.Times == 0 {
		fault.Times = 1
	}
	known := false
	for _, k := range slices.Concat(Faults(), NexthopFaults(), SysctlFaults()) {
		if k.Kind == fault.Kind {
			known = true
			if fault.Err == nil {
				fault.Err = k.Err
			}
			break
		}
	}
	if !known {
		panic(fmt.Sprintf("kerneltest: unknown kind of fault %q", fault.Kind))
	}
	i := &Injected{fake: f, fault: fault}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = append(f.plan, i)
	return i
}

// ClearFaults empties the plan.
func (f *Fake) ClearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = nil
}

// due counts an occasion of that kind and returns the fault that strikes now, or nil. The lock is held.
func (f *Fake) due(kind Kind) error {
	var err error
	for _, i := range f.plan {
		if i.fault.Kind != kind {
			continue
		}
		i.seen++
		if i.seen >= i.fault.Nth && i.seen < i.fault.Nth+i.fault.Times && err == nil {
			i.fired++
			err = i.fault.Err
		}
	}
	return err
}
