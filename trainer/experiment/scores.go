package experiment

import (
	"context"
	"errors"
	"fmt"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/metrics"
)

// Score is how good features are on rows that were not trained on.
type Score struct {
	Probe    float64  `json:"probe"`     // accuracy of a linear probe
	KNN      float64  `json:"knn"`       // accuracy of the nearest neighbours by cosine
	SpecDiff *float64 `json:"spec_diff"` // to the reference, cosine kernels
	CKA      *float64 `json:"cka"`       // linear; null where an embedding is constant
	NNGS     float64  `json:"nngs"`
}

// scored are features with the labels of their rows.
type scored struct {
	features *rows
	labels   []int
}

// scorer scores features, equal ones once: those that many runs begin with.
type scorer struct {
	open  func() (align.Backend, error)
	known map[string]*Score
}

// of scores test, by what is learnt from train.
func (s *scorer) of(ctx context.Context, train, test *rows, h *held, k int) (score *Score, err error) {
	key := fmt.Sprint(train.checksum(), test.checksum(), h.test.reference.sum, h.train.labels.sum, h.test.labels.sum, k)
	if known := s.known[key]; known != nil {
		return known, nil
	}
	b, err := s.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	score = &Score{}
	learnt, tested := scored{train, h.train.labels.numbers}, scored{test, h.test.labels.numbers}
	if score.Probe, err = probe(ctx, learnt, tested, h.classes); err != nil {
		return nil, err
	}
	if score.KNN, err = neighbours(ctx, b, learnt, tested, h.classes, k); err != nil {
		return nil, err
	}
	o := metrics.DefaultOptions()
	o.Without = []string{"cka_rbf"}
	memory := func(r *rows) *compare.Memory { return &compare.Memory{Data: r.data, Columns: r.d} }
	r, err := metrics.Run(ctx, memory(test), memory(&h.test.reference), o, b)
	if err != nil {
		return nil, fmt.Errorf("experiment: scores: %w", err)
	}
	score.SpecDiff, score.CKA, score.NNGS = r.SpecDiff, r.CKA.Linear, r.NNGS[0].Value
	s.known[key] = score
	return score, nil
}
