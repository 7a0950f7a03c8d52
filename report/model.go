package report

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/validate"
)

// page is what the template shows.
type page struct {
	*Input
	Groups  []group
	SeenBy  [2][]group          // the same, by the model that sees them
	Found   [2]*validate.Result // whether K-means finds a side's groups again; nil where it was not asked
	Left    [2]int              // groups of the result that are not shown
	Points  int
	Pairs   int // pairs behind the average distance
	Numbers numbers
	Data    *data
	parts
}

// group is one group as the page shows it.
type group struct {
	compare.Group
	Tag     string // A1, A2, ... for the student's, B1, ... for the reference's
	Side    int
	Own     string     // name of the model that sees it
	Other   string     // and of the one that does not
	Title   string     // what it consists of; "" without labels
	Classes []share    // by falling count
	Mean    [2]float64 // distance inside the group; the average of the data set is 1
	Closer  [2]float64 // share of the data set's pairs that are farther apart than a typical pair (the median) of the group
	Members []member
	Judged  int          // samples whose distances were measured
	pairs   [2][]float64 // these distances
	Hidden  int          // samples of the result that are not shown
}

// share is how much of a group a class makes up.
type share struct {
	Label    string
	Part     float64 // of the group
	Everyone float64 // of the data set
}

// member is a sample of a group.
type member struct {
	compare.Sample
	Point int
	Label string
	Text  string
	Thumb *thumb
}

// build makes the page of an input that Check has passed.
func build(ctx context.Context, in *Input) (*page, *Report, error) {
	s := choose(in.Result, in.Result.Settings.Seed)
	g, err := measure(ctx, in, s.points)
	if err != nil {
		return nil, nil, err
	}
	var pics *pictures
	report := &Report{Points: len(s.points)}
	if in.Images != nil {
		if pics, err = photograph(ctx, in.Images, &s); err != nil {
			return nil, nil, err
		}
		report.Thumbnail = pics.edge
	}
	p := &page{Input: in, Points: len(s.points), Pairs: len(s.background) * (len(s.background) - 1) / 2, Numbers: readNumbers(in.Result)}
	p.Left = [2]int{len(in.Result.Positive) - s.students, len(in.Result.Negative) - (len(s.groups) - s.students)}
	var random [2][]float64 // distances of pairs of random samples, rising
	var average [2]float64
	for side := range random {
		random[side] = g.pairs(side, s.background)
		slices.Sort(random[side])
		average[side] = mean(random[side])
	}
	if v := in.Result.Validation; v != nil {
		p.Found = [2]*validate.Result{v.Positive, v.Negative}
	}
	everyone := tally(in.Labels)
	for i := range s.groups {
		q := newGroup(in, &s, pics, i)
		if err := q.judge(ctx, in, i); err != nil {
			return nil, nil, err
		}
		for side := range q.Mean {
			pairs := q.pairs[side]
			if average[side] > 0 {
				q.Mean[side] = mean(pairs) / average[side]
			}
			q.Closer[side] = closer(pairs, random[side])
		}
		q.Classes = composition(q.Samples, in.Labels, everyone)
		q.Title = title(q.Classes)
		p.Groups = append(p.Groups, q)
		p.SeenBy[q.Side] = append(p.SeenBy[q.Side], q)
	}
	p.Data = newData(in, &s, g, pics, p.Groups, average)
	p.parts, err = loadParts()
	return p, report, err
}

// judge measures the distances inside the group, number i of the page.
func (q *group) judge(ctx context.Context, in *Input, i int) error {
	index := judged(&q.Group, rand.New(rand.NewPCG(in.Result.Settings.Seed, uint64(i))))
	g, err := measure(ctx, in, index)
	if err != nil {
		return err
	}
	all := make([]int, len(index))
	for k := range all {
		all[k] = k
	}
	for side := range q.pairs {
		q.pairs[side] = g.pairs(side, all)
	}
	q.Judged = len(index)
	return nil
}

func newGroup(in *Input, s *selection, pics *pictures, i int) group {
	q := group{Group: s.groups[i], Side: s.side(i)}
	rank := i + 1
	if q.Side == 1 {
		rank -= s.students
	}
	q.Tag = fmt.Sprintf("%c%d", 'A'+q.Side, rank)
	q.Own, q.Other = in.Names[q.Side], in.Names[1-q.Side]
	for k, sample := range samples(q.Group) {
		m := member{Sample: sample, Point: s.members[i][k]}
		m.ID = clean(m.ID, maxID)
		if in.Labels != nil {
			m.Label = clean(in.Labels[m.Index], maxID)
		}
		if in.Texts != nil {
			m.Text = clean(in.Texts[m.Index], maxText)
		}
		if pics != nil {
			t := pics.thumbs[m.Point]
			m.Thumb = &t
		}
		q.Members = append(q.Members, m)
	}
	q.Hidden = len(q.Samples) - len(q.Members)
	return q
}

// tally counts labels.
func tally(labels []string) map[string]int {
	count := map[string]int{}
	for _, l := range labels {
		count[l]++
	}
	return count
}

// composition counts the labels of a group's listed samples; nil without labels.
func composition(samples []compare.Sample, labels []string, everyone map[string]int) []share {
	if labels == nil {
		return nil
	}
	listed := make([]string, len(samples))
	for i, s := range samples {
		listed[i] = labels[s.Index]
	}
	var out []share
	for label, count := range tally(listed) {
		out = append(out, share{
			Label: clean(label, maxID), Part: float64(count) / float64(len(samples)), Everyone: float64(everyone[label]) / float64(len(labels)),
		})
	}
	slices.SortFunc(out, func(a, b share) int { return cmp.Or(cmp.Compare(b.Part, a.Part), cmp.Compare(a.Label, b.Label)) })
	return out
}

// title names what most of a group is.
func title(classes []share) string {
	const most = 0.6
	switch {
	case len(classes) == 0:
		return ""
	case len(classes) == 1:
		return classes[0].Label
	case classes[0].Part >= most:
		return "mostly " + classes[0].Label
	case classes[0].Part+classes[1].Part >= most:
		return classes[0].Label + " and " + classes[1].Label
	}
	text := "mixed: " + classes[0].Label + ", " + classes[1].Label
	if len(classes) > 2 {
		text += ", ..."
	}
	return text
}

// clearBy is how many times as many pairs of the data set, at least, are closer together than a typical pair of a clear
// group in the model that does not see it.
const clearBy = 2

// Clear tells whether the distances inside the group agree with its eigenvalue.
func (q group) Clear() bool {
	return clearBy*(1-q.Closer[q.Side]) <= 1-q.Closer[1-q.Side] && q.Closer[q.Side] > 0.5
}

func clearGroups(groups []group) []group {
	var out []group
	for _, q := range groups {
		if q.Clear() {
			out = append(out, q)
		}
	}
	return out
}

// Whole says what all members of the group are, beyond the samples listed; "" where that is not known.
func (q group) Whole() string {
	const most = 4
	if q.Size == 0 || len(q.Composition) == 0 {
		return ""
	}
	var parts []string
	for _, c := range q.Composition[:min(len(q.Composition), most)] {
		parts = append(parts, percent(c.Share)+" "+clean(c.Label, maxID))
	}
	return strings.Join(parts, ", ")
}

// Examples are the samples that stand for the group in a list.
func (q group) Examples() []member { return q.Members[:min(len(q.Members), 2)] }

// OwnShare and OtherShare are how much of the group the model that sees it sees, and the other one.
func (q group) OwnShare() float64   { return [2]float64{q.StudentShare, q.ReferenceShare}[q.Side] }
func (q group) OtherShare() float64 { return [2]float64{q.StudentShare, q.ReferenceShare}[1-q.Side] }

// Times says how much more the one sees than the other.
func (q group) Times() string {
	const most = 1000
	switch ratio := q.OwnShare() / q.OtherShare(); {
	case q.OtherShare() <= 0 || ratio > most:
		return fmt.Sprintf("more than %d times as much", most)
	case ratio < 10:
		return fmt.Sprintf("%.1f times as much", ratio)
	default:
		return fmt.Sprintf("%.0f times as much", ratio)
	}
}
