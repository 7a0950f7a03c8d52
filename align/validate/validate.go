package validate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align"
)

// Rows are m rows of width Columns, row-major.
type Rows struct {
	Data    []float32
	Columns int
}

func (r *Rows) len() int            { return len(r.Data) / max(r.Columns, 1) }
func (r *Rows) row(i int) []float32 { return r.Data[i*r.Columns : (i+1)*r.Columns] }

// Side is one embedding: its rows of the members and of the background, and its kernel.
type Side struct {
	Members    Rows // row i belongs to Input.Members[i]
	Background Rows // row i belongs to Input.Background[i]
	Kernel     align.Kernel
	Sigma      float64 // of a Gaussian or Laplacian kernel
}

// Input is what Run validates.
type Input struct {
	Members            []Member // as Union gives them
	Background         []int    // indices of samples drawn from the whole data set without repetition; 500 are enough
	Student, Reference Side
	Seed               uint64
}

// The sizes of the paper.
const (
	kMeansRuns = 50
	rankHalf   = 4 // samples that make a centre, and samples that are ranked against it
)

// Result is the `positive` or `negative` of `validate` in the JSON document of a comparison.
type Result struct {
	Members   []Member  `json:"members"` // by group, then by falling score
	Groups    int       `json:"groups"`
	Runs      int       `json:"runs"` // of K-means
	Student   Embedding `json:"student"`
	Reference Embedding `json:"reference"`
}

// Embedding is what one embedding makes of the groups.
type Embedding struct {
	AMI       Score       `json:"ami"` // adjusted mutual information of K-means' clusters and the groups: 1 the same, 0 chance
	NMI       Score       `json:"nmi"` // normalised mutual information: 1 the same; chance is above 0
	Distances []Distances `json:"distances"`
	Between   float64     `json:"between"` // mean distance of members of different groups, in the same unit
	Unit      float64     `json:"unit"`    // mean distance of two samples of the data set, in the embedding's own measure
	Ranking   []Ranking   `json:"ranking"` // one a group; none for a group of fewer than eight members
	KernelPCA []Component `json:"kernel_pca"`
	HeatMap   [][]float32 `json:"-"` // (m, m) kernel matrix of the members, in their order
}

// Score is a mean over the runs of K-means and its standard deviation (with n - 1).
type Score struct {
	Mean float64 `json:"mean"`
	Std  float64 `json:"std"`
}

// Distances are those between the members of one group, in units of Embedding.Unit.
type Distances struct {
	Group     int        `json:"group"`
	Mean      float64    `json:"mean"`
	Quantiles [5]float64 `json:"quantiles"` // 5, 25, 50, 75 and 95 %
	Values    []float32  `json:"-"`         // of all pairs, or of maxPairs of them, evenly spaced; rising
}

// maxPairs bounds the distances that are kept of a group: enough to draw a violin.
const maxPairs = 2000

// Ranking is the test of section B.2: samples are ordered by similarity to the centre of the group's four strongest
// members.
type Ranking struct {
	Group   int     `json:"group"`
	Members []int   `json:"members"` // the four next members of the group, as indices of samples
	Random  int     `json:"random"`  // how many samples of the background they were ranked against
	AUC     float64 `json:"auc"`     // share of pairs in which the member is the more similar: .5 is chance, ties count half
}

// Run validates groups.
func Run(ctx context.Context, in Input) (*Result, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	r := &Result{Members: in.Members, Runs: kMeansRuns}
	labels := make([]int, len(in.Members))
	for i, m := range in.Members {
		labels[i] = m.Group
		r.Groups = max(r.Groups, m.Group+1)
	}
	for i, out := range []*Embedding{&r.Student, &r.Reference} {
		side := []*Side{&in.Student, &in.Reference}[i]
		if err := side.validate(ctx, out, &in, labels, r.Groups); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (in *Input) check() error {
	if len(in.Members) == 0 {
		return errors.New("validate: there are no members")
	}
	for i, side := range []*Side{&in.Student, &in.Reference} {
		if got := side.Members.len(); got != len(in.Members) {
			return fmt.Errorf("validate: side %d has %d rows of %d members", i, got, len(in.Members))
		}
		if got := side.Background.len(); got != len(in.Background) {
			return fmt.Errorf("validate: side %d has %d rows of a background of %d", i, got, len(in.Background))
		}
		if len(in.Background) > 0 && side.Background.Columns != side.Members.Columns {
			return fmt.Errorf("validate: side %d has members of %d numbers, but a background of %d", i, side.Members.Columns, side.Background.Columns)
		}
	}
	if !slices.IsSortedFunc(in.Members, func(a, b Member) int { return a.Group - b.Group }) || in.Members[0].Group < 0 {
		return errors.New("validate: the members are not in the order of their groups")
	}
	return nil
}

func (s *Side) validate(ctx context.Context, e *Embedding, in *Input, labels []int, groups int) error {
	x, err := s.geometry(&s.Members)
	if err != nil {
		return err
	}
	background, err := s.geometry(&s.Background)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(in.Seed, 0x6b6d65616e73))
	ami, nmi := make([]float64, kMeansRuns), make([]float64, kMeansRuns)
	gram := centredGram(x)
	for i := range kMeansRuns {
		if err := ctx.Err(); err != nil {
			return err
		}
		found := kMeans(gram, groups, rng)
		ami[i], nmi[i] = AMI(labels, found), NMI(labels, found)
	}
	e.AMI, e.NMI = score(ami), score(nmi)
	e.Unit = meanDistance(background, s.distance)
	e.distances(x, in.Members, s.distance)
	e.ranking(x, background, in.Members, s.similarity)
	if e.KernelPCA, err = s.kernelPCA(background, in.Background, groups); err != nil {
		return err
	}
	e.HeatMap = make([][]float32, len(x))
	for i := range x {
		e.HeatMap[i] = make([]float32, len(x))
		for j := range x {
			e.HeatMap[i][j] = float32(s.similarity(x[i], x[j]))
		}
	}
	return nil
}

func score(v []float64) Score {
	sum, square := 0.0, 0.0
	for _, x := range v {
		sum += x
	}
	mean := sum / float64(len(v))
	for _, x := range v {
		square += (x - mean) * (x - mean)
	}
	return Score{mean, math.Sqrt(square / float64(len(v)-1))}
}
