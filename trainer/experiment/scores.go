package experiment

import (
	"context"
	"errors"
	"fmt"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/evaluation"
	"github.com/specalign/specalign/align/metrics"
)

// Score is how good features are on rows that were not trained on.
type Score struct {
	Probe    float64  `json:"probe"`     // accuracy of a linear probe
	KNN      float64  `json:"knn"`       // accuracy of the nearest neighbours by cosine
	SpecDiff *float64 `json:"spec_diff"` // to the reference, cosine kernels
	CKA      *float64 `json:"cka"`       // linear; null where an embedding is constant
	NNGS     float64  `json:"nngs"`
	Known    *float64 `json:"known,omitempty"`     // accuracy of a probe for the labels that the student could tell before
	ZeroShot *float64 `json:"zero_shot,omitempty"` // of task contrastive: how often the own other half is the most similar
	Spectrum Spectrum `json:"spectrum"`            // of the difference to the reference
}

// Spectrum holds the strongest eigenvalues of a difference L on each side, strongest first.
type Spectrum struct {
	Positive []float64 `json:"positive"`
	Negative []float64 `json:"negative"`
}

// shown is how many eigenvalues of each side are kept.
const shown = 40

// scorer scores features, equal ones once: those that many runs begin with.
type scorer struct {
	open  func() (align.Backend, error)
	known map[string]*Score
}

// of scores test, by what is learnt from train.
func (s *scorer) of(ctx context.Context, train, test *rows, h *held, k int) (score *Score, err error) {
	key := fmt.Sprint(train.checksum(), test.checksum(), h.test.reference.sum, h.train.labels.sum, h.test.labels.sum, h.train.known.sum, h.test.known.sum, k)
	if known := s.known[key]; known != nil {
		return known, nil
	}
	b, err := s.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	score = &Score{}
	learnt, tested := train.with(&h.train.labels), test.with(&h.test.labels)
	if score.Probe, err = evaluation.Probe(ctx, learnt, tested, h.classes); err != nil {
		return nil, err
	}
	if names := h.train.known.names; names != nil {
		share, err := evaluation.Probe(ctx, train.with(&h.train.known), test.with(&h.test.known), len(names))
		if err != nil {
			return nil, err
		}
		score.Known = &share
	}
	if score.KNN, err = evaluation.Neighbours(ctx, b, learnt, tested, h.classes, k); err != nil {
		return nil, err
	}
	if err := score.distances(ctx, b, test, &h.test.reference); err != nil {
		return nil, fmt.Errorf("experiment: scores: %w", err)
	}
	s.known[key] = score
	return score, nil
}

// distances measures how far features are from the reference's of the same rows.
func (s *Score) distances(ctx context.Context, b align.Backend, test, reference *rows) error {
	memory := func(r *rows) *compare.Memory { return &compare.Memory{Data: r.data, Columns: r.d} }
	o := metrics.DefaultOptions()
	o.Without = []string{"cka_rbf", "spec_diff"}
	m, err := metrics.Run(ctx, memory(test), memory(reference), o, b)
	if err != nil {
		return err
	}
	s.CKA, s.NNGS = m.CKA.Linear, m.NNGS[0].Value
	c := compare.DefaultOptions()
	c.Top, c.Samples, c.Permutations, c.Koda, c.Certify, c.ValidateGroups = 1, 1, 0, 0, false, false
	r, err := compare.Run(ctx, compare.Input{Student: memory(test), Reference: memory(reference)}, c, b)
	if err != nil {
		return err
	}
	s.SpecDiff = &r.SpecDiff
	s.Spectrum = Spectrum{r.Spectrum.Positive[:min(shown, len(r.Spectrum.Positive))], r.Spectrum.Negative[:min(shown, len(r.Spectrum.Negative))]}
	return nil
}
