package report

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"slices"

	"github.com/specalign/specalign/align/compare"
)

const (
	nearest   = 15 // of a point on the map, itself included, as UMAP counts
	maxValues = 40 // eigenvalues drawn on each side
)

// data is what the charts are drawn from. A packed field is base64 of little-endian numbers.
type data struct {
	Names    [2]string   `json:"names"`
	Groups   []dataGroup `json:"groups"`
	Points   []dataPoint `json:"points"`
	Classes  []string    `json:"classes,omitempty"` // by falling count
	Atlas    *atlas      `json:"atlas,omitempty"`
	Sides    [2]dataSide `json:"sides"`
	Nearest  int         `json:"nearest"` // neighbours of a point, itself included
	Spectrum spectrum    `json:"spectrum"`
	Heat     heat        `json:"heat"`
}

type dataGroup struct {
	Tag    string     `json:"tag"`
	Side   int        `json:"side"`
	Rank   int        `json:"rank"` // among its side's by strength, from 0
	Title  string     `json:"title,omitempty"`
	Clear  bool       `json:"clear"`
	Points []int      `json:"points"` // by falling score
	Drawn  []int      `json:"drawn"`  // of members drawn at random; none where members were not looked for
	Mean   [2]float64 `json:"mean"`   // 0 where no distances were measured
	Pairs  [2]string  `json:"pairs"`  // packed float32: distances of pairs inside
}

type dataPoint struct {
	Index int    `json:"index"`
	ID    string `json:"id,omitempty"` // of a group's sample
	Class *int   `json:"class,omitempty"`
	Text  string `json:"text,omitempty"`
}

type dataSide struct {
	Neighbours string `json:"neighbours"` // packed uint16 (points, nearest)
	Distances  string `json:"distances"`  // packed float32 (points, nearest)
	Start      string `json:"start"`      // packed float32 (points, 2)
}

// spectrum holds eigenvalues of both ends by falling magnitude, and where those of the shuffles lie.
type spectrum struct {
	Values [2][]float64 `json:"values"`
	Null   [2][]band    `json:"null"` // by rank; empty without a permutation null
}

// band is the range of an eigenvalue over the shuffles.
type band struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// heat is the kernel matrices of the groups' members that were drawn, in the groups' order.
type heat struct {
	Points []int         `json:"points"`
	Starts []int         `json:"starts"` // where each group begins, and the end
	Ranges [2][2]float64 `json:"ranges"` // what 0 and 255 stand for on each side
	Values [2]string     `json:"values"` // packed uint8 (points, points)
}

func newData(in *Input, s *selection, g *geometry, pics *pictures, groups []group) *data {
	d := &data{Names: in.Names, Groups: []dataGroup{}, Nearest: min(nearest, g.m), Spectrum: newSpectrum(in.Result), Heat: newHeat(s, g)}
	if pics != nil {
		d.Atlas = pics.atlas
	}
	d.Points, d.Classes = newPoints(in, s.points)
	for i, q := range groups {
		dg := dataGroup{Tag: q.Tag, Side: q.Side, Rank: s.ranks[i], Title: q.Title, Clear: q.Clear(), Points: s.members[i], Drawn: []int{}}
		for _, m := range slices.Concat(q.Members, q.Random) {
			d.Points[m.Point].ID = m.ID
		}
		for _, m := range q.Random {
			dg.Drawn = append(dg.Drawn, m.Point)
		}
		if q.Closeness != nil {
			dg.Mean = q.Closeness.Distance
			for side, values := range q.Closeness.Distances {
				dg.Pairs[side] = pack(values)
			}
		}
		d.Groups = append(d.Groups, dg)
	}
	for side := range d.Sides {
		indices, distances := g.neighbours(side, d.Nearest)
		d.Sides[side] = dataSide{pack(indices), pack(distances), pack(g.start(side))}
	}
	return d
}

// newPoints describes the map's points.
func newPoints(in *Input, points []int) (out []dataPoint, classes []string) {
	number := map[string]int{}
	if in.Labels != nil {
		everyone := tally(in.Labels)
		for label := range everyone {
			classes = append(classes, label)
		}
		slices.SortFunc(classes, func(a, b string) int {
			return cmp.Or(cmp.Compare(everyone[b], everyone[a]), cmp.Compare(a, b))
		})
		for i, label := range classes {
			number[label] = i
			classes[i] = clean(label, maxID)
		}
	}
	for _, i := range points {
		p := dataPoint{Index: i}
		if in.Labels != nil {
			class := number[in.Labels[i]]
			p.Class = &class
		}
		if in.Texts != nil {
			p.Text = clean(in.Texts[i], maxText)
		}
		out = append(out, p)
	}
	return out, classes
}

func newSpectrum(r *compare.Result) spectrum {
	var s spectrum
	s.Values = [2][]float64{first(r.Spectrum.Positive, maxValues), first(r.Spectrum.Negative, maxValues)}
	for side := range s.Null {
		s.Null[side] = []band{}
		if r.Null == nil {
			continue
		}
		shuffles := [2][][]float64{r.Null.Positive, r.Null.Negative}[side]
		for rank := range s.Values[side] {
			var values []float64
			for _, list := range shuffles {
				if rank < len(list) {
					values = append(values, list[rank])
				}
			}
			if len(values) == 0 {
				break
			}
			s.Null[side] = append(s.Null[side], band{slices.Min(values), slices.Max(values)})
		}
	}
	return s
}

func first(values []float64, most int) []float64 {
	if values == nil {
		return []float64{}
	}
	return values[:min(len(values), most)]
}

func newHeat(s *selection, g *geometry) heat {
	h := heat{Points: []int{}, Starts: []int{0}}
	for _, members := range s.drawn {
		h.Points = append(h.Points, members[:min(len(members), s.heat)]...)
		h.Starts = append(h.Starts, len(h.Points))
	}
	for side, k := range g.kernels {
		values := make([]float64, 0, len(h.Points)*len(h.Points))
		for _, i := range h.Points {
			for _, j := range h.Points {
				values = append(values, float64(k[i*g.m+j]))
			}
		}
		if len(values) == 0 {
			continue
		}
		low, high := slices.Min(values), slices.Max(values)
		h.Ranges[side] = [2]float64{low, high}
		bytes := make([]uint8, len(values))
		for i, v := range values {
			if high > low {
				bytes[i] = uint8(255*(v-low)/(high-low) + 0.5)
			}
		}
		h.Values[side] = pack(bytes)
	}
	return h
}

// pack is base64 of little-endian numbers of a fixed size.
func pack(numbers any) string {
	bytes, err := binary.Append(nil, binary.LittleEndian, numbers)
	if err != nil {
		panic(err) // only slices of fixed-size numbers come here
	}
	return base64.StdEncoding.EncodeToString(bytes)
}
