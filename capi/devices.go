//go:build !gpu

package main

import (
	"github.com/specalign/specalign/csrc"
	"github.com/specalign/specalign/internal/steps"
)

// devices: this library uses the CPU.
func devices() steps.Devices {
	m := steps.CPU(csrc.OpenHosted)
	m.Note = csrc.HostedNote
	return m
}

// keepDevice returns what puts the calling thread's GPU back: here nothing changes it.
func keepDevice() func() { return func() {} }
