//go:build gpu

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/cuda"
)

func gpus() (names []string, reason string) { return cuda.Names() }

func gpuUUIDs() []string { return cuda.UUIDs() }

func openGPU(name string, host align.Backend) (align.Backend, error) {
	return cuda.OpenNamed(name, host)
}

// handOver: this is the program that the other one hands over to.
func handOver() {}

// newProbe is the verb by which specalign asks whether this program can run here.
func newProbe() *cobra.Command {
	return &cobra.Command{Use: probeVerb, Hidden: true, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return answerProbe(cmd.OutOrStdout())
	}}
}

// answerProbe opens the first device, and so finds out whether the driver is new enough.
func answerProbe(w io.Writer) error {
	names, reason := gpus()
	if len(names) == 0 {
		return errors.New(reason)
	}
	b, err := openGPU("cuda:0", align.NewGo(1))
	if err != nil {
		return err
	}
	if err := b.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, probeAnswer+versionLine())
	return err
}

// gpuReady says what steps will run on, where that is a GPU, and else why it is none.
func gpuReady() (string, *gpuProblem) {
	names, reason := gpus()
	if len(names) == 0 {
		return "", &gpuProblem{reason: bare(errors.New(reason)).Error(), driver: true}
	}
	return "steps run on cuda:0, " + names[0], nil
}
