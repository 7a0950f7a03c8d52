//go:build gpu

package cuda

import (
	"fmt"

	"gorgonia.org/cu"
)

// Device is what the driver says of a GPU.
type Device struct {
	Ordinal      int
	Name, UUID   string
	Major, Minor int   // compute capability
	Memory       int64 // bytes
}

// minMajor is the oldest compute capability that the kernels are compiled for: Ampere.
const minMajor = 8

// minDriver is the CUDA version that a driver must know to run them, that of csrc/requirements-cuda.txt, and minRelease
// the first such driver.
const (
	minDriver  = 13000
	minRelease = 580
)

// Driver returns the CUDA version of the driver, 13000 for 13.0.
func Driver() int { return cu.Version() }

// Devices lists the GPUs of this machine.
func Devices() ([]Device, error) {
	if v := Driver(); v < minDriver {
		return nil, fmt.Errorf("cuda: the driver is too old: it knows CUDA %d.%d, and the kernels need %d.%d (driver %d or later)",
			v/1000, v%1000/10, minDriver/1000, minDriver%1000/10, minRelease)
	}
	count, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	var out []Device
	for i := range count {
		d, err := deviceAt(i)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func deviceAt(ordinal int) (Device, error) {
	wrong := func(err error) (Device, error) { return Device{}, fmt.Errorf("cuda: device %d: %w", ordinal, err) }
	d, err := cu.GetDevice(ordinal)
	if err != nil {
		return wrong(err)
	}
	out := Device{Ordinal: ordinal}
	if out.Name, err = d.Name(); err != nil {
		return wrong(err)
	}
	if out.Memory, err = d.TotalMem(); err != nil {
		return wrong(err)
	}
	if out.Major, err = d.Attribute(cu.ComputeCapabilityMajor); err != nil {
		return wrong(err)
	}
	if out.Minor, err = d.Attribute(cu.ComputeCapabilityMinor); err != nil {
		return wrong(err)
	}
	if id, err := d.UUID(); err == nil {
		out.UUID = "GPU-" + id.String()
	}
	if out.Major < minMajor {
		return wrong(fmt.Errorf("%s has compute capability %d.%d; the kernels need %d.0 or later", out.Name, out.Major, out.Minor, minMajor))
	}
	return out, nil
}
