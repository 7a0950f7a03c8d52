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

// newProbe is the verb by which the Python package asks whether there is a GPU to use, and if not, why.
func newProbe() *cobra.Command {
	return &cobra.Command{Use: probeVerb, Hidden: true, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if _, err := findGPU(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), probeAnswer+versionLine())
		return err
	}}
}

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
		return "", &gpuProblem{reason: "this build has no GPU support, and there is no " + gpuProgram + " beside it",
			advice: "build " + gpuProgram + " (docs/gpu.md) and put it beside specalign"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, probeVerb)
	cmd.WaitDelay = time.Second
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	err = cmd.Run()
	said := strings.Join(strings.Fields(bad.String()+" "+out.String()), " ")
	answer := strings.TrimSpace(out.String())
	switch {
	case ctx.Err() != nil:
		return "", &gpuProblem{gpuProgram + " did not answer within 20 s", "see whether nvidia-smi answers; the kernel's log may say more", true}
	case err != nil && strings.Contains(said, "libcuda.so.1"):
		return "", &gpuProblem{reason: "there is no NVIDIA driver: libcuda.so.1 was not found",
			advice: "install the driver, 580 or later; a container gets it from its host (docker run --gpus all)"}
	case err != nil && strings.Contains(said, "NoDevice"):
		reason := "the NVIDIA driver finds no GPU"
		if hidden, ok := os.LookupEnv("CUDA_VISIBLE_DEVICES"); ok {
			reason += fmt.Sprintf(", and CUDA_VISIBLE_DEVICES is %q", hidden)
		}
		return "", &gpuProblem{reason, "nvidia-smi -L lists the GPUs; CUDA_VISIBLE_DEVICES hides what it does not name", true}
	case err != nil && (strings.Contains(said, "driver is too old") || strings.Contains(said, "driver version is insufficient")):
		return "", &gpuProblem{strings.TrimPrefix(said, "specalign: "), "install driver 580 or later", true}
	case err != nil && strings.Contains(said, "compute capability"):
		return "", &gpuProblem{strings.TrimPrefix(said, "specalign: "), "none of the kernels is for such a GPU; give device: cpu", true}
	case err != nil:
		return "", &gpuProblem{gpuProgram + " cannot use the GPU: " + strings.TrimPrefix(said, "specalign: "), "run " + path + " " + probeVerb + " to see it fail", true}
	case answer != probeAnswer+versionLine():
		return "", &gpuProblem{fmt.Sprintf("%s is of another build: it says %q", gpuProgram, answer), "build both from one commit: make build gpu", true}
	}
	return path, nil
}

// handOver replaces this program by specalign-gpu, with the same arguments and streams, where that can run here. The
// first one stays this program's path, by which a daemon whose GPU is lost calls it again.
func handOver() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	if path, err := findGPU(); err == nil {
		if csrc.StdoutClosed() {
			_ = syscall.Close(syscall.Stdout) // it must find out, too
		}
		_ = syscall.Exec(path, append([]string{self}, os.Args[1:]...), os.Environ())
	}
}

// gpuReady says what steps will run on, where that is a GPU, and else why it is none.
func gpuReady() (string, *gpuProblem) {
	path, err := findGPU()
	if err == nil {
		return "steps run on it, by " + path, nil
	}
	p := (*gpuProblem)(nil)
	if !errors.As(err, &p) {
		p = &gpuProblem{reason: err.Error()}
	}
	return "", p
}
