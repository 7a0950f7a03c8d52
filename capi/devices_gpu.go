//go:build gpu

package main

import (
	"github.com/specalign/specalign/csrc"
	"github.com/specalign/specalign/cuda"
	"github.com/specalign/specalign/internal/steps"
)

// devices: this library uses GPUs, too.
func devices() steps.Devices {
	return steps.Machine{CPU: csrc.OpenHosted, GPUs: cuda.Names, GPU: cuda.OpenNamed, Note: csrc.HostedNote}
}

// keepDevice returns what puts the calling thread's GPU back as it is now: the caller's own CUDA code looks at it.
func keepDevice() func() { return cuda.Keep() }
