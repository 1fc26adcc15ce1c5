package kerneltest

import (
	"context"
	"fmt"
	"slices"
	"syscall"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Names of the devconf entries that are no interface.
const (
	confAll     = "all"
	confDefault = "default"
)

// newSysctls are the settings of a new namespace with nothing but lo.
func newSysctls() map[kernel.Sysctl]int {
	s := map[kernel.Sysctl]int{kernel.SysctlNexthopCompat: 1}
	for _, name := range []string{confAll, confDefault, "lo"} {
		s[kernel.DeviceRPFilter(name)] = kernel.RPFilterOff
		s[kernel.DeviceForward(name, false)], s[kernel.DeviceForward(name, true)] = 0, 0
		s[kernel.DeviceSetting(name, false, kernel.RouteLocalnet)], s[kernel.DeviceSetting(name, false, kernel.ProxyARP)] = 0, 0
		s[kernel.DeviceSetting(name, true, kernel.ProxyNDP)], s[kernel.DeviceSetting(name, true, kernel.DisableIPv6)] = 0, 0
		s[kernel.ProxyDelay(name)] = 80
	}
	return s
}

// perDevice are the sysctls that each interface has of its own.
func perDevice(name string) []kernel.Sysctl {
	return []kernel.Sysctl{kernel.DeviceRPFilter(name), kernel.DeviceForward(name, false), kernel.DeviceForward(name, true),
		kernel.DeviceSetting(name, false, kernel.RouteLocalnet), kernel.DeviceSetting(name, false, kernel.ProxyARP), kernel.ProxyDelay(name),
		kernel.DeviceSetting(name, true, kernel.ProxyNDP), kernel.DeviceSetting(name, true, kernel.DisableIPv6)}
}

// beginConf gives a new interface the settings of "default" and tells of them; endConf takes them away.
func (f *Fake) beginConf(l *link) {
	from := perDevice(confDefault)
	for i, name := range perDevice(l.Name) {
		f.sysctls[name] = f.sysctls[from[i]]
	}
	for _, v6 := range []bool{false, true} {
		f.emit(kernel.Event{Kind: kernel.EventSysctl, Netconf: f.netconf(l.Index, l.Name, v6)})
	}
}

func (f *Fake) endConf(l *link) {
	for _, name := range perDevice(l.Name) {
		delete(f.sysctls, name)
	}
	for _, v6 := range []bool{true, false} {
		gone := kernel.Netconf{Link: l.Index, V6: v6, Forwarding: kernel.Unsaid, RPFilter: kernel.Unsaid}
		f.emit(kernel.Event{Kind: kernel.EventSysctl, Deleted: true, Netconf: gone})
	}
}

func (f *Fake) netconf(index int, name string, v6 bool) kernel.Netconf {
	c := kernel.Netconf{Link: index, V6: v6, Forwarding: int8(f.sysctls[kernel.DeviceForward(name, v6)]), RPFilter: kernel.Unsaid}
	if !v6 {
		c.RPFilter = int8(f.sysctls[kernel.DeviceRPFilter(name)])
	}
	return c
}

// confNames are the places of settings in the order of their indices, "default" and "all" first.
func (f *Fake) confNames() ([]int, map[int]string) {
	names := map[int]string{kernel.LinkAll: confAll, kernel.LinkDefault: confDefault}
	for index, l := range f.links {
		names[index] = l.Name
	}
	var order []int
	for index := range names {
		order = append(order, index)
	}
	slices.Sort(order)
	return order, names
}

func (f *Fake) listNetconf(ctx context.Context, v6 bool) ([]kernel.Netconf, error) {
	if err := f.enter(ctx, "ListNetconf", ListNetconfFails); err != nil {
		return nil, fmt.Errorf("list settings of interfaces: %w", err)
	}
	var all []kernel.Netconf
	order, names := f.confNames()
	for _, index := range order {
		all = append(all, f.netconf(index, names[index], v6))
	}
	return all, nil
}

// ipForwardAll is another name of the same number as SysctlIPForward.
const ipForwardAll kernel.Sysctl = "net/ipv4/conf/all/forwarding"

func alias(name kernel.Sysctl) kernel.Sysctl {
	if name == kernel.SysctlIPForward {
		return ipForwardAll
	}
	return name
}

func (f *Fake) readSysctl(ctx context.Context, name kernel.Sysctl) (int, error) {
	err := f.enter(ctx, "ReadSysctl", ReadSysctlFails)
	if err == nil {
		err = name.Check()
	}
	value, there := f.sysctls[alias(name)]
	if err == nil && !there {
		err = kernel.FromErrno(syscall.ENOENT)
	}
	if err != nil {
		return 0, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return value, nil
}

func (f *Fake) writeSysctl(ctx context.Context, name kernel.Sysctl, value int) error {
	err := f.enter(ctx, "WriteSysctl", WriteSysctlFails)
	if err == nil {
		err = name.Check()
	}
	if err == nil {
		err = f.setSysctl(alias(name), value)
	}
	if err != nil {
		return fmt.Errorf("write sysctl %s to %d: %w", name, value, err)
	}
	return nil
}

func (f *Fake) setSysctl(name kernel.Sysctl, value int) error {
	old, there := f.sysctls[name]
	if !there {
		return kernel.FromErrno(syscall.ENOENT)
	}
	if name == kernel.SysctlNexthopCompat && value != 0 && value != 1 {
		return kernel.FromErrno(syscall.EINVAL)
	}
	f.sysctls[name] = value
	if value == old {
		return nil
	}
	order, names := f.confNames()
	for _, v6 := range []bool{false, true} {
		if name == kernel.DeviceForward(confAll, v6) {
			// One write for all: "default" and every interface follow.
			for _, index := range order {
				f.sysctls[kernel.DeviceForward(names[index], v6)] = value
				f.tellForward(index, v6, value)
			}
			return nil
		}
	}
	for _, index := range order {
		switch name {
		case kernel.DeviceRPFilter(names[index]):
			f.emit(kernel.Event{Kind: kernel.EventSysctl, Netconf: kernel.Netconf{Link: index, Forwarding: kernel.Unsaid, RPFilter: int8(value)}})
		case kernel.DeviceForward(names[index], false):
			f.tellForward(index, false, value)
		case kernel.DeviceForward(names[index], true):
			f.tellForward(index, true, value)
		case kernel.DeviceSetting(names[index], false, kernel.ProxyARP), kernel.DeviceSetting(names[index], true, kernel.ProxyNDP):
			v6 := name == kernel.DeviceSetting(names[index], true, kernel.ProxyNDP)
			f.emit(kernel.Event{Kind: kernel.EventSysctl, Netconf: kernel.Netconf{Link: index, V6: v6, Forwarding: kernel.Unsaid, RPFilter: kernel.Unsaid}})
		}
	}
	return nil
}

func (f *Fake) tellForward(index int, v6 bool, value int) {
	f.emit(kernel.Event{Kind: kernel.EventSysctl, Netconf: kernel.Netconf{Link: index, V6: v6, Forwarding: int8(value), RPFilter: kernel.Unsaid}})
}
