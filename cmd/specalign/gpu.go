package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/plugin"
)

// A program asks specalign-gpu with probeVerb; what it answers begins with probeAnswer and goes on with its version.
const (
	probeVerb   = "probe"
	probeAnswer = "specalign-gpu 1 "
)

// machine are the devices of this machine: the CPU, and what gpus found.
type machine struct {
	cpu func(threads int) (align.Backend, error)
}

func (m machine) Resolve(device string) (name, note string, err error) {
	if device == "cpu" {
		return "cpu", "", nil
	}
	names, reason := gpus()
	ordinal := 0
	if text, ok := strings.CutPrefix(device, "cuda:"); ok {
		if ordinal, err = strconv.Atoi(text); err != nil || ordinal < 0 {
			return "", "", inputErrorf("device is %s; give auto, cpu, cuda or cuda:N", device)
		}
	}
	switch {
	case device == "auto" && len(names) == 0:
		return "cpu", reason, nil
	case len(names) == 0:
		return "", "", inputErrorf("device is %s, but %s; give auto or cpu", device, reason)
	case ordinal >= len(names):
		return "", "", inputErrorf("device is %s, but there are %s here (from cuda:0)", device, count(len(names), "GPU"))
	}
	return fmt.Sprintf("cuda:%d", ordinal), names[ordinal], nil
}

func (m machine) Open(name string, threads int) (align.Backend, error) {
	host, err := m.cpu(threads)
	if err != nil || name == "cpu" {
		return host, err
	}
	return openGPU(name, host)
}

var _ plugin.Devices = machine{}
