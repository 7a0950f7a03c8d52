package main

// A program asks specalign-gpu with probeVerb; what it answers begins with probeAnswer and goes on with its version.
const (
	probeVerb   = "probe"
	probeAnswer = "specalign-gpu 1 "
)
