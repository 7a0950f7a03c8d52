package csrc

// Options choose how a backend runs.
type Options struct {
	ISA     string // "" for the best of Levels that the kernel gives this process, else one of them
	Threads int    // most threads of an operation; 0 for half of the CPUs that this process may run on, at least 1 and at most 16
}

// Peak is implemented by the backends of this package, for benchmarks.
type Peak interface {
	// PeakFLOPS measures the multiply-adds of one thread on registers: floating-point operations a second; 0 of a closed
	// backend.
	PeakFLOPS() float64
}
