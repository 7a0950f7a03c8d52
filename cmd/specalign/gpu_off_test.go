//go:build !gpu

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFindGPU: what specalign-gpu may answer, and what is then said of it. The test program stands in for specalign.
func TestFindGPU(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(self), gpuProgram)
	if _, err := os.Stat(path); err == nil {
		t.Fatalf("%s is there", path)
	}
	if _, err := askGPU(); err == nil || !strings.Contains(err.Error(), "no specalign-gpu beside it") {
		t.Errorf("without the program: %v", err)
	}
	for _, test := range []struct{ name, script, want string }{
		{"no driver", "echo 'error while loading shared libraries: libcuda.so.1: cannot open shared object file' >&2; exit 127", "no NVIDIA driver"},
		{"no device", "echo 'CUDA initialization failed: NoDevice'; exit 1", "the NVIDIA driver finds no GPU"},
		{"driver too old", "echo 'specalign: the driver is too old: it knows CUDA 12.8' >&2; exit 1", "the driver is too old: it knows CUDA 12.8"},
		{"driver too old for the runtime", "echo 'specalign: device 0, X: open: device: CUDA driver version is insufficient' >&2; exit 1", "driver version is insufficient"},
		{"old GPU", "echo 'specalign: device 0: X has compute capability 7.5; the kernels need 8.0 or later' >&2; exit 1", "X has compute capability 7.5"},
		{"fails", "echo 'specalign: device 0, X: open: device: out of memory' >&2; exit 1", "specalign-gpu cannot use the GPU: device 0, X: open: device: out of memory"},
		{"another build", "echo specalign-gpu 1 0.0.0", "another build"},
		{"something else", "echo hello", "another build"},
		{"ready", "echo '" + probeAnswer + versionLine() + "'", ""},
	} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+test.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
		switch got, err := askGPU(); {
		case test.want == "" && (err != nil || got != path):
			t.Errorf("%s: %q, %v", test.name, got, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		case test.want != "" && err.(*gpuProblem).advice == "":
			t.Errorf("%s: %v, and nothing is advised", test.name, err)
		}
	}
}
