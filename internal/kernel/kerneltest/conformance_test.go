package kerneltest_test

import (
	"testing"

	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

func open(*testing.T) *kerneltest.Machine { return kerneltest.FakeMachine(kerneltest.NewFake()) }

func TestConformanceOfFake(t *testing.T) { kerneltest.Conformance(t, open) }

// The name must not hold "IPIP": this needs no kernel.
func TestTunnelConformanceOfFake(t *testing.T) { kerneltest.ConformanceIPIP(t, open) }
