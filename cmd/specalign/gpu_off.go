//go:build !gpu

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
)

// gpuProgram is what this program becomes where it stands beside it and a GPU answers.
const gpuProgram = "specalign-gpu"

// gpus: this program uses none; it says why specalign-gpu does not run in its place.
var gpus = sync.OnceValues(func() (names []string, reason string) {
	_, err := findGPU()
	if err == nil {
		err = errors.New("this program was not replaced by " + gpuProgram)
	}
	return nil, err.Error()
})

func gpuUUIDs() []string { return nil }

func openGPU(name string, _ align.Backend) (align.Backend, error) {
	return nil, fmt.Errorf("this build has no %s", name)
}

func newProbe() *cobra.Command { return nil }

// findGPU returns the path of specalign-gpu where that can run here. It asks it in a process of its own: where there is
// no driver the loader ends it before it begins, and where there is no device its CUDA library ends it with a line on
// stdout, which a host would take for the sidecar's first.
var findGPU = sync.OnceValues(askGPU)

func askGPU() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), gpuProgram)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("this build has no GPU support, and there is no %s beside it", gpuProgram)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, probeVerb)
	cmd.WaitDelay = time.Second
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	err = cmd.Run()
	said := strings.Join(strings.Fields(bad.String()+" "+out.String()), " ")
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s did not answer within 20 s", gpuProgram)
	case err != nil && strings.Contains(said, "libcuda.so.1"):
		return "", errors.New("there is no NVIDIA driver: libcuda.so.1 was not found")
	case err != nil:
		return "", fmt.Errorf("%s finds no GPU that it can use: %s", gpuProgram, strings.TrimPrefix(said, "specalign: "))
	}
	if answer := strings.TrimSpace(out.String()); answer != probeAnswer+versionLine() {
		return "", fmt.Errorf("%s is of another build: it says %q", gpuProgram, answer)
	}
	return path, nil
}

// handOver replaces this program by specalign-gpu, with the same arguments and streams, where that can run here.
func handOver() {
	if path, err := findGPU(); err == nil {
		if csrc.StdoutClosed() {
			_ = syscall.Close(syscall.Stdout) // it must find out, too
		}
		_ = syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ())
	}
}

// gpuReady says what steps will run on, where that is a GPU.
func gpuReady() string {
	path, err := findGPU()
	if err != nil {
		return ""
	}
	return "steps run on it, by " + path
}
