package main

// A program asks specalign-gpu with probeVerb; what it answers begins with probeAnswer and goes on with its version.
const (
	probeVerb   = "probe"
	probeAnswer = "specalign-gpu 1 "
)

// gpuProblem is why there is no GPU to use.
type gpuProblem struct {
	reason, advice string
	driver         bool // there is one, of which more could be had
}

func (p *gpuProblem) Error() string { return p.reason }
