package metrics

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/specalign/specalign/align"
)

// Chance returns the expectation of NNGS where one neighbourhood has nothing to do with the other: of m/(2k - m) with m
// hypergeometric, k drawn from n - 1 of which k are marked. The probabilities
//
//	P(m) ∝ (k choose m) (n-1-k choose k-m),   P(m+1)/P(m) = (k-m)² / ((m+1) (n-2k+m))
//
// are followed from the mode both ways and normalised by their sum, so that none is lost to rounding.
func Chance(n, k int) float64 {
	if n < 2 {
		return 1
	}
	low := max(0, 2*k-(n-1))
	ratio := func(m int) float64 { // P(m+1)/P(m)
		return float64(k-m) * float64(k-m) / (float64(m+1) * float64(n-2*k+m))
	}
	mode := min(k, max(low, int(float64(k+1)*float64(k+1)/float64(n+1))))
	var total, sum float64
	add := func(m int, p float64) {
		total += p
		sum += p * float64(m) / float64(2*k-m)
	}
	p := 1.0
	for m := mode; m <= k && p > 0; m++ {
		add(m, p)
		if m < k {
			p *= ratio(m)
		}
	}
	p = 1
	for m := mode - 1; m >= low && p > 0; m-- {
		p /= ratio(m)
		add(m, p)
	}
	return sum / total
}

// nngs computes the scores for several k: the mean over the samples of the Jaccard index |A ∩ B| / |A ∪ B| of the sets
// of their k nearest neighbours in the two embeddings.
func (s *scan) nngs(ctx context.Context, ks []int, metric string) ([]float64, error) {
	most := slices.Max(ks)
	sums := make([]float64, len(ks))
	for first := 0; first < s.n; first += s.blocks.queries {
		count := min(s.blocks.queries, s.n-first)
		var near [2][][]int32
		for side := range near {
			var err error
			if near[side], err = s.neighbours(ctx, side, first, count, most, metric); err != nil {
				return nil, err
			}
		}
		scores := make([]float64, count*len(ks))
		s.parallel(count, func(from, to int) {
			overlap := newOverlap(s.n, most)
			for q := from; q < to; q++ {
				overlap.jaccard(scores[q*len(ks):(q+1)*len(ks)], ks, near[0][q], near[1][q])
			}
		})
		for i, v := range scores { // in a fixed order, for the same bits with any number of threads
			sums[i%len(ks)] += v
		}
	}
	for i := range sums {
		sums[i] /= float64(s.n)
	}
	return sums, nil
}

// overlap counts how many neighbours two lists have in common up to each rank.
type overlap struct {
	rank   []int32 // of the first list's members, counted from 1
	common []int   // common[r]: members of both whose worse rank is r
}

func newOverlap(n, k int) *overlap { return &overlap{make([]int32, n), make([]int, k+1)} }

// jaccard writes |A_k ∩ B_k| / |A_k ∪ B_k| for each k, with A_k and B_k the first k of two lists.
func (o *overlap) jaccard(dst []float64, ks []int, a, b []int32) {
	clear(o.common)
	for i, j := range a {
		o.rank[j] = int32(i + 1)
	}
	for i, j := range b {
		if r := int(o.rank[j]); r > 0 {
			o.common[max(r, i+1)]++
		}
	}
	for _, j := range a {
		o.rank[j] = 0
	}
	for at, k := range ks {
		m := 0
		for _, c := range o.common[:k+1] {
			m += c
		}
		dst[at] = float64(m) / float64(2*k-m)
	}
}

// candidate is a sample that may be among the nearest.
type candidate struct {
	nearness float64 // larger is nearer
	index    int32
}

// nearer orders by falling nearness, which is finite, then by index. It is called often.
func nearer(a, b candidate) int {
	switch {
	case a.nearness > b.nearness:
		return -1
	case a.nearness < b.nearness:
		return 1
	}
	return int(a.index - b.index)
}

// neighbours finds the k nearest others of the rows first .. first+count-1 of a side, the nearest first; of two that
// are equally near the one with the lower index comes first. Inner products in float32 choose some more candidates than
// k; these are ranked by distances in float64. So two samples can only change places if their distances agree to
// float32 rounding at the end of the candidates.
func (s *scan) neighbours(ctx context.Context, side, first, count, k int, metric string) ([][]int32, error) {
	queries, _, err := s.loadNormal("queries", side, first, count, metric)
	if err != nil {
		return nil, err
	}
	p := newPool(count, min(k+k/8+16, s.n-1))
	stage := "neighbours, " + metric + ", " + sideName[side]
	err = s.database(ctx, side, metric, func(x, sq align.Matrix, at int) error {
		products, err := s.memory.Get("products", x.Rows, count)
		if err != nil {
			return err
		}
		a, b := align.Side{Kernel: align.KernelLinear, X: x}, align.Side{Kernel: align.KernelLinear, X: queries}
		if err := s.b.CrossKernel(products, a, b); err != nil {
			return err
		}
		s.parallel(count, func(from, to int) { p.collect(products, sq, at, first, from, to, metric) })
		s.step(stage, first+int(int64(count)*int64(at+x.Rows)/int64(s.n)), s.n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.rank(ctx, p, side, first, k, metric)
}

// database calls f with blocks of all rows of a side, made ready for the metric.
func (s *scan) database(ctx context.Context, side int, metric string, f func(x, sq align.Matrix, at int) error) error {
	for at := 0; at < s.n; at += s.blocks.database {
		if err := s.check(ctx); err != nil {
			return err
		}
		x, sq, err := s.loadNormal("database", side, at, min(s.blocks.database, s.n-at), metric)
		if err != nil {
			return err
		}
		if err := f(x, sq, at); err != nil {
			return err
		}
	}
	return nil
}

// loadNormal reads rows and makes them ready: of unit norm for the cosine; moved near the origin for distances, which
// do not change but lose fewer digits there. The rows as read stay in the matrix of that name.
func (s *scan) loadNormal(name string, side, first, count int, metric string) (x, sq align.Matrix, err error) {
	x, sq, err = s.read(name, side, first, count)
	if err != nil {
		return x, sq, err
	}
	ready, err := s.memory.Get(name+" ready", count, x.Cols)
	if err != nil {
		return x, sq, err
	}
	if metric == Cosine {
		inv, err := s.memory.Get(name+" inverse norms", 1, count)
		if err != nil {
			return x, sq, err
		}
		return ready, sq, s.b.Normalize(ready, inv, x, sq)
	}
	if s.shift[side] == nil { // the mean of the first rows that are read
		s.shift[side] = make([]float32, x.Cols)
		for j := range s.shift[side] {
			sum := 0.0
			for i := range count {
				sum += float64(row(x, i)[j])
			}
			s.shift[side][j] = float32(sum / float64(count))
		}
	}
	for i := range count {
		from, to := row(x, i), row(ready, i)
		for j, v := range s.shift[side] {
			to[j] = from[j] - v
		}
		row(sq, 0)[i] = float32(squared(to))
		if row(sq, 0)[i] > math.MaxFloat32/8 { // sums of three such terms must be finite
			return x, sq, s.badRow(side, from, first+i)
		}
	}
	return ready, sq, nil
}

// pool holds the candidates of some queries.
type pool struct {
	keep      int // how many are wanted of each
	lists     [][]candidate
	threshold []float32 // what a further candidate must exceed
}

func newPool(count, keep int) *pool {
	p := &pool{keep: keep, lists: make([][]candidate, count), threshold: make([]float32, count)}
	for i := range p.lists {
		p.lists[i] = make([]candidate, 0, 2*keep)
		p.threshold[i] = float32(math.Inf(-1))
	}
	return p
}

// collect takes from inner products (rows, count) of the rows from at on with the queries from .. to-1, of which the
// first is row first of the data set, those that are near: <x, q>, or <x, q> - |x|²/2, which falls with |x - q|.
func (p *pool) collect(products, sq align.Matrix, at, first, from, to int, metric string) {
	for j := range products.Rows {
		half := float32(0)
		if metric == Euclidean {
			half = row(sq, 0)[j] / 2
		}
		values := row(products, j)[from:to]
		threshold := p.threshold[from:to]
		for i, v := range values {
			if v-half > threshold[i] && at+j != first+from+i {
				p.add(from+i, candidate{float64(v - half), int32(at + j)})
			}
		}
	}
}

func (p *pool) add(query int, c candidate) {
	list := append(p.lists[query], c)
	if len(list) == cap(list) {
		list = p.trim(list)
		p.threshold[query] = float32(list[len(list)-1].nearness)
	}
	p.lists[query] = list
}

// trim keeps the best. Candidates come by rising index, so that one as near as the worst that is kept is left out
// rightly.
func (p *pool) trim(list []candidate) []candidate {
	slices.SortFunc(list, nearer)
	return list[:min(len(list), p.keep)]
}

// rank computes the distances of the candidates in float64 and returns the k nearest of each query.
func (s *scan) rank(ctx context.Context, p *pool, side, first, k int, metric string) ([][]int32, error) {
	count := len(p.lists)
	s.parallel(count, func(from, to int) {
		for q := from; q < to; q++ {
			p.lists[q] = p.trim(p.lists[q])
			slices.SortFunc(p.lists[q], func(a, b candidate) int { return cmp.Compare(a.index, b.index) })
		}
	})
	queries := s.memory.Held("queries") // as read
	next := make([]int, count)          // the first candidate that has not been ranked
	err := s.database(ctx, side, metric, func(_, _ align.Matrix, at int) error {
		x := s.memory.Held("database")
		end := min(at+s.blocks.database, s.n)
		s.parallel(count, func(from, to int) {
			for q := from; q < to; q++ {
				list := p.lists[q]
				for ; next[q] < len(list) && int(list[next[q]].index) < end; next[q]++ {
					c := &list[next[q]]
					a, b := rowOf(queries, q, s.rows[side].Dim()), rowOf(x, int(c.index)-at, s.rows[side].Dim())
					if metric == Cosine {
						c.nearness = cosine(a, b)
					} else {
						c.nearness = -squaredDistance(a, b)
					}
				}
			}
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([][]int32, count)
	s.parallel(count, func(from, to int) {
		for q := from; q < to; q++ {
			slices.SortFunc(p.lists[q], nearer)
			out[q] = make([]int32, k)
			for i := range out[q] {
				out[q][i] = p.lists[q][i].index
			}
		}
	})
	return out, nil
}

func rowOf(m align.Matrix, i, d int) []float32 { return m.Data[i*m.Stride : i*m.Stride+d] }

// cosine is 0 where a row is zero.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i, v := range a {
		x, y := float64(v), float64(b[i])
		ab += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

func squared(a []float32) float64 {
	sum := 0.0
	for _, v := range a {
		sum += float64(v) * float64(v)
	}
	return sum
}

func squaredDistance(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		d := float64(v) - float64(b[i])
		sum += d * d
	}
	return sum
}
