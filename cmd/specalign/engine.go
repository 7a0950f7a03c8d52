package main

import (
	"errors"
	"fmt"
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

// openDevice opens what the setting device names for a command that has the machine to itself, with auto the CPU where the
// GPU cannot be had. note says why that one, where the choice was automatic.
func openDevice(device string, threads int) (b align.Backend, note string, err error) {
	all := machine(openAll)
	name, note, err := all.Resolve(device)
	if err != nil {
		return nil, "", err
	}
	if b, err = all.Open(name, threads); err != nil && device == "auto" && name != "cpu" {
		note = message(err) + "; the CPU did the work"
		b, err = all.Open("cpu", threads)
	}
	return b, note, err
}

// computeOn computes on b. Where that is a GPU which fails or has no room, the setting auto computes again on the CPU, and
// note says so.
func computeOn[T any](b align.Backend, device string, note *string, compute func(b align.Backend) (T, error)) (T, error) {
	result, err := compute(b)
	lost, full := (*align.DeviceError)(nil), (*align.DeviceMemoryError)(nil)
	if !errors.As(err, &lost) && !errors.As(err, &full) {
		return result, err
	}
	if device != "auto" {
		return result, fmt.Errorf("%w; --device cpu does without it", err)
	}
	*note = message(err) + "; the CPU did the work"
	return compute(align.HostOf(b))
}

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
