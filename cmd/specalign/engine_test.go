package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/specalign/specalign/align"
)

// gpuOf is a device that has nothing but a host.
type gpuOf struct {
	align.Device
	host align.Backend
}

func (g gpuOf) Host() align.Backend { return g.host }

// TestComputeOn: what a GPU cannot finish, auto finishes on the CPU and says why; cuda ends with one line of advice. Other
// errors are no reason to begin again.
func TestComputeOn(t *testing.T) {
	host := align.NewGo(1)
	for _, fault := range []error{
		&align.DeviceError{Device: "cuda:0", Text: "gram: lost"}, &align.DeviceMemoryError{Device: "cuda:0", Text: "gram: lost"},
	} {
		var ran []align.Backend
		compute := func(b align.Backend) (int, error) {
			ran = append(ran, b)
			if b == host {
				return 7, nil
			}
			return 0, fault
		}
		note := "a GPU"
		if got, err := computeOn(gpuOf{host: host}, "auto", &note, compute); got != 7 || err != nil || note != "cuda:0: gram: lost; the CPU did the work" {
			t.Errorf("auto: %d, %v, %q", got, err, note)
		}
		note = "a GPU"
		_, err := computeOn(gpuOf{host: host}, "cuda", &note, compute)
		if !errors.Is(err, fault) || message(err) != "cuda:0: gram: lost; --device cpu does without it" || note != "a GPU" || len(ran) != 3 {
			t.Errorf("cuda: %v, %q, %d runs", err, note, len(ran))
		}
	}
	runs, note := 0, ""
	if _, err := computeOn(gpuOf{host: host}, "auto", &note, func(align.Backend) (int, error) { runs++; return 0, fmt.Errorf("no such file") }); err == nil || runs != 1 {
		t.Errorf("another error: %v after %d runs", err, runs)
	}
}
