//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"gorgonia.org/cu"

	"github.com/specalign/specalign/align"
)

// Names lists the GPUs; where there is none, it says why.
var Names = sync.OnceValues(func() (names []string, reason string) {
	devices, err := Devices()
	if err != nil {
		return nil, err.Error()
	}
	for _, d := range devices {
		names = append(names, fmt.Sprintf("%s, compute capability %d.%d", d.Name, d.Major, d.Minor))
	}
	if len(names) == 0 {
		return nil, "the driver sees no GPU"
	}
	return names, ""
})

// UUIDs lists the GPUs' UUIDs, by ordinal.
var UUIDs = sync.OnceValue(func() (uuids []string) {
	devices, _ := Devices()
	for _, d := range devices {
		uuids = append(uuids, d.UUID)
	}
	return uuids
})

// OpenNamed is Open for a device by its name, such as cuda:0. It closes host where it fails.
func OpenNamed(name string, host align.Backend) (align.Backend, error) {
	ordinal, err := strconv.Atoi(strings.TrimPrefix(name, "cuda:"))
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	b, err := Open(ordinal, host)
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	return b, nil
}

// Keep returns what gives the calling thread its current context back. The thread must be the same then.
func Keep() func() {
	before, err := cu.CurrentContext()
	if err != nil {
		return func() {}
	}
	return func() { _ = cu.SetCurrentContext(before) }
}
