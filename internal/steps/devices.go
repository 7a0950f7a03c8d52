package steps

import "github.com/specalign/specalign/align"

// CPU returns the Devices of a build that has the CPU only; open opens the backend.
func CPU(open func(threads int) (align.Backend, error)) Devices { return cpuDevices{open} }

type cpuDevices struct {
	open func(threads int) (align.Backend, error)
}

func (cpuDevices) Resolve(device string) (name, note string, err error) {
	switch device {
	case "cpu":
		return "cpu", "", nil
	case "auto":
		return "cpu", "this build has no GPU support", nil
	}
	return "", "", inputErrorf(
		"plugin: device is %s, but this build has no GPU support; give auto or cpu, or install the GPU build", device)
}

func (d cpuDevices) Open(_ string, threads int) (align.Backend, error) { return d.open(threads) }
