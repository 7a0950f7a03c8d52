package csrc

// Options choose how a backend runs.
type Options struct {
	ISA     string // "" for the best level of this CPU, else one of Levels
	Threads int    // most threads of an operation; 0 for half of the CPUs that this process may run on, at least 1 and at most 16
}
