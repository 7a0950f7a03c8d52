package main

// specalign asks specalign-gpu with probeVerb, and is asked so itself; where there is a GPU to use, the answer is
// probeAnswer and the version.
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
