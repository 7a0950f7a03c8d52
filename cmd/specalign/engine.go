package main

import (
	"runtime"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
	"github.com/specalign/specalign/plugin"
)

// devices are what the sidecar can compute on: a trainer works beside it.
func devices() plugin.Devices { return machine(csrc.OpenWanted) }

// machine are the devices of this machine: the CPU, and what gpus found.
func machine(cpu func(threads int) (align.Backend, error)) plugin.Devices {
	return plugin.Machine{CPU: cpu, GPUs: gpus, GPU: openGPU, UUIDs: gpuUUIDs, Note: csrc.Note}
}

// allDevices are what a command can compute on that has the machine to itself; analyses run on the CPU.
func allDevices() plugin.Devices { return plugin.CPU(openAll) }

// openAll opens the CPU, by default with all CPUs of this process, or as many as its container is granted the time of.
func openAll(threads int) (align.Backend, error) {
	if threads == 0 {
		var err error
		if threads, err = csrc.WantedThreads(); err != nil {
			return nil, err
		}
	}
	if threads == 0 {
		threads = min(runtime.GOMAXPROCS(0), align.MaxThreads)
	}
	return csrc.OpenWanted(threads)
}
