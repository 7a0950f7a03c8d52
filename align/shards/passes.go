package shards

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// Rows opens one shard of a plan; close is called when it was read.
type Rows func(s Shard) (student, reference compare.Rows, close func() error, err error)

// Pass is what a pass over some shards needs.
type Pass struct {
	Shards   []int // by their number in the plan
	Open     Rows
	Backend  align.Backend
	Progress func(done, total int) // rows; may be nil
}

// Partial computes the moments of some shards.
func (p *Plan) Partial(ctx context.Context, pass Pass) ([]byte, error) {
	tree := compare.NewTree(len(p.Shards), (*compare.Moments).Merge)
	seen, err := p.each(pass, func(w *compare.Worker, shard int) error {
		m, err := w.Moments(ctx, 0, p.Shards[shard].Rows)
		if err != nil {
			return err
		}
		return tree.Add(compare.Part[*compare.Moments]{Index: shard, Children: 1, Sum: m})
	})
	if err != nil {
		return nil, err
	}
	c, err := p.cover(pass.Backend.Info().ISA, "", seen)
	if err != nil {
		return nil, err
	}
	return encodeMoments(&c, tree)
}

// Top computes the scores of some shards: for each direction the samples with the largest and smallest, and sums. A
// shard whose rows are not those that the first pass saw is an error.
func (p *Plan) Top(ctx context.Context, directions File, pass Pass) ([]byte, error) {
	d, err := parseDirections(directions)
	if err != nil {
		return nil, err
	}
	if err := d.belongs(directions, p); err != nil {
		return nil, err
	}
	tree := newScoresTree(len(p.Shards), p.Options.Samples)
	seen, err := p.each(pass, func(w *compare.Worker, shard int) error {
		s, err := w.Scores(ctx, &d.Directions, 0, p.Shards[shard].Rows, false)
		if err != nil {
			return err
		}
		for k := range s.High {
			for _, list := range [][]compare.Entry{s.High[k], s.Low[k]} {
				for i := range list {
					list[i].Index += p.first[shard]
				}
			}
		}
		return tree.Add(compare.Part[*compare.Scores]{Index: shard, Children: 1, Sum: s})
	})
	if err != nil {
		return nil, err
	}
	for _, s := range seen { // the directions cover all shards
		if err := changed(d.Seen[s.Shard], s); err != nil {
			return nil, err
		}
	}
	c, err := p.cover(pass.Backend.Info().ISA, digest(directions.Data), seen)
	if err != nil {
		return nil, err
	}
	return encodeScores(&c, len(d.Directions.Values), len(d.Directions.Mean), p.Options.Samples, tree)
}

// each visits shards in their order, and fingerprints what was read of them.
func (p *Plan) each(pass Pass, visit func(w *compare.Worker, shard int) error) ([]Seen, error) {
	ids := slices.Sorted(slices.Values(pass.Shards))
	total := 0
	for i, shard := range ids {
		if shard < 0 || shard >= len(p.Shards) {
			return nil, inputErrorf("shards: there is no shard %d; the plan has 0 to %d", shard, len(p.Shards)-1)
		}
		if i > 0 && shard == ids[i-1] {
			return nil, inputErrorf("shards: %s is given twice", p.name(shard))
		}
		total += p.Shards[shard].Rows
	}
	if len(ids) == 0 {
		return nil, inputErrorf("shards: no shard is given")
	}
	var seen []Seen
	done := 0
	for _, shard := range ids {
		s, err := p.one(pass, shard, visit)
		if err != nil {
			return nil, err
		}
		seen = append(seen, s)
		if done += s.Rows; pass.Progress != nil {
			pass.Progress(done, total)
		}
	}
	return seen, nil
}

func (p *Plan) one(pass Pass, shard int, visit func(w *compare.Worker, shard int) error) (seen Seen, err error) {
	s := p.Shards[shard]
	student, reference, closeRows, err := pass.Open(s)
	if err != nil {
		return seen, fmt.Errorf("shard %d: %w", shard, err)
	}
	defer func() { err = errors.Join(err, closeRows()) }()
	witnesses := [2]*witness{{Rows: student}, {Rows: reference}}
	for side, w := range witnesses {
		name := [2]string{s.Student, s.Reference}[side]
		if got, want := w.Dim(), p.Maps[side].Dim; got != want {
			return seen, inputErrorf("shards: %s has rows of %d numbers, but the plan has %d", shardName(shard, name), got, want)
		}
		if got := w.Len(); got != s.Rows {
			return seen, inputErrorf("shards: %s has %d rows, but %d when the plan was made", shardName(shard, name), got, s.Rows)
		}
	}
	w, err := compare.NewWorker(&p.Plan, [2]compare.Rows{witnesses[0], witnesses[1]}, pass.Backend)
	if err != nil {
		return seen, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := visit(w, shard); err != nil {
		return seen, err
	}
	return Seen{shard, s.Student, s.Rows, witnesses[0].crc, witnesses[1].crc}, nil
}

// partHeader is the place of a part in its tree.
type partHeader struct {
	Level    int `json:"level"`
	Index    int `json:"index"`
	Children int `json:"children"`
	N        int `json:"n"`
}

// sorted returns the parts of a tree by their first shard, so that equal trees give equal files.
func sorted[T any](t *compare.Tree[T]) []compare.Part[T] {
	parts := t.Parts()
	slices.SortFunc(parts, func(a, b compare.Part[T]) int {
		x, _ := t.Shards(a)
		y, _ := t.Shards(b)
		return cmp.Compare(x, y)
	})
	return parts
}

// placed puts the parts of a file, by rising shard, into a tree, after a check that they are the sums over just the
// shards that it lists.
func placed[T any](f File, c *cover, tree *compare.Tree[T], headers []partHeader, sums []T) error {
	at := 0
	for i, h := range headers {
		p := compare.Part[T]{Level: h.Level, Index: h.Index, Children: h.Children, Sum: sums[i]}
		if tree.Check(p) != nil {
			return f.malformed("there is no part %d of level %d", h.Index, h.Level)
		}
		first, end := tree.Shards(p)
		rows := 0
		for shard := first; shard < end; shard++ {
			if at == len(c.Seen) || c.Seen[at].Shard != shard {
				return f.malformed("its sums are not over the shards that it lists")
			}
			rows += c.Seen[at].Rows
			at++
		}
		if rows != h.N {
			return f.malformed("a sum over %d rows has %d", rows, h.N)
		}
		if err := tree.Add(p); err != nil {
			return f.malformed("%v", err)
		}
	}
	if at != len(c.Seen) {
		return f.malformed("its sums are not over the shards that it lists")
	}
	return nil
}
