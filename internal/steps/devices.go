package steps

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/specalign/specalign/align"
)

// CPU returns the Devices of a build that has the CPU only; open opens the backend.
func CPU(open func(threads int) (align.Backend, error)) Machine {
	return Machine{CPU: open, GPUs: func() ([]string, string) { return nil, "this build has no GPU support" }}
}

// Machine are the Devices of a machine: the CPU and its GPUs.
type Machine struct {
	CPU  func(threads int) (align.Backend, error)
	GPUs func() (names []string, reason string)                       // reason: why there is none
	GPU  func(name string, host align.Backend) (align.Backend, error) // takes host over

	UUIDs func() []string // of the GPUs; nil: unknown
	Note  func() string   // what else there is to say of the CPU where it is the choice; nil or "": nothing
}

// Ordinal implements GPUs.
func (m Machine) Ordinal(uuid string) (int, bool) {
	if m.UUIDs == nil {
		return 0, false
	}
	ordinal := slices.Index(m.UUIDs(), uuid)
	return ordinal, ordinal >= 0
}

// Resolve implements Devices.
func (m Machine) Resolve(device string) (name, note string, err error) {
	if device == "cpu" {
		return "cpu", "", nil
	}
	names, reason := m.GPUs()
	ordinal := 0
	if text, ok := strings.CutPrefix(device, "cuda:"); ok {
		if ordinal, err = strconv.Atoi(text); err != nil || ordinal < 0 {
			return "", "", inputErrorf("device is %s; give auto, cpu, cuda or cuda:N", device)
		}
	}
	switch {
	case device == "auto" && len(names) == 0:
		return "cpu", reason + m.more(), nil
	case len(names) == 0:
		return "", "", inputErrorf("device is %s, but %s; give auto or cpu", device, reason)
	case ordinal >= len(names):
		return "", "", inputErrorf("device is %s, but the GPUs here are cuda:0 to cuda:%d", device, len(names)-1)
	}
	return fmt.Sprintf("cuda:%d", ordinal), names[ordinal], nil
}

func (m Machine) more() string {
	if m.Note == nil {
		return ""
	}
	if note := m.Note(); note != "" {
		return "; " + note
	}
	return ""
}

// Open implements Devices.
func (m Machine) Open(name string, threads int) (align.Backend, error) {
	host, err := m.CPU(threads)
	if err != nil || name == "cpu" {
		return host, err
	}
	return m.GPU(name, host)
}
