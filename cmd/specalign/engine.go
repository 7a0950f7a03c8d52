package main

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
	"github.com/specalign/specalign/plugin"
)

// devices are what the sidecar can compute on: a trainer works beside it.
func devices() plugin.Devices { return machine{openCPU} }

// allDevices are what a command can compute on that has the machine to itself; analyses run on the CPU.
func allDevices() plugin.Devices { return plugin.CPU(openAll) }

// openAll opens the CPU, by default with all CPUs of this process, or as many as its container is granted the time of.
func openAll(threads int) (align.Backend, error) {
	if threads == 0 {
		var err error
		if threads, err = wantedThreads(); err != nil {
			return nil, err
		}
	}
	if threads == 0 {
		threads = min(runtime.GOMAXPROCS(0), align.MaxThreads)
	}
	return openCPU(threads)
}

// openCPU opens the CPU backend as SPECALIGN_ISA and SPECALIGN_THREADS say; threads 0 leaves it to them.
func openCPU(threads int) (align.Backend, error) {
	isa, err := wantedISA()
	if err != nil {
		return nil, err
	}
	if threads == 0 {
		if threads, err = wantedThreads(); err != nil {
			return nil, err
		}
	}
	return csrc.Open(csrc.Options{ISA: isa, Threads: threads})
}

// wantedISA reads SPECALIGN_ISA: empty for the CPU's best level. AMX is taken only where it is named here.
func wantedISA() (string, error) {
	isa, levels := os.Getenv("SPECALIGN_ISA"), csrc.Levels()
	if isa != "" && !slices.Contains(levels, isa) && !csrc.HasOnRequest(isa) {
		return "", inputErrorf("SPECALIGN_ISA is %q, but this CPU has %s; unset it for the best level", isa, strings.Join(levels, ", "))
	}
	return isa, nil
}

// wantedThreads reads SPECALIGN_THREADS: 0 where it is not set.
func wantedThreads() (int, error) {
	text := os.Getenv("SPECALIGN_THREADS")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > align.MaxThreads {
		return 0, inputErrorf("SPECALIGN_THREADS is %q; give 0 (the default) to %d", text, align.MaxThreads)
	}
	return n, nil
}
