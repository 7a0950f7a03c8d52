package report

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
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
	Pairs   int  // random pairs behind the average distance; 0: no distances were measured
	Named   bool // a group has a title
	Random  bool // members were drawn at random
	Numbers numbers
	Data    *data
	parts
}

// group is one group as the page shows it.
type group struct {
	compare.Group
	Tag     string // A1, A2, ... for the student's, B1, ... for the reference's
	Side    int
	Own     string   // name of the model that sees it
	Other   string   // and of the one that does not
	Title   string   // what its members are; "" without labels and texts
	Classes []share  // of its members, by falling share
	Words   []share  // that tell its members' texts from the others, the most telling first
	Strong  []share  // the same of the samples with the highest scores, where these are not all that is known of it
	Members []member // the samples shown, by falling score
	Random  []member // members drawn at random; none where members were not looked for
	Hidden  int      // samples of the result that are not shown
}

// share is how much of a group a class makes up, or the texts that have a word.
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
	p := &page{Input: in, Points: len(s.points), Numbers: readNumbers(in.Result)}
	p.Left = [2]int{len(in.Result.Positive) - s.students, len(in.Result.Negative) - (len(s.groups) - s.students)}
	if v := in.Result.Validation; v != nil {
		p.Found = [2]*validate.Result{cmp.Or(v.PositiveDrawn, v.Positive), cmp.Or(v.NegativeDrawn, v.Negative)}
	}
	words := make([][]share, 2*len(s.groups)) // of the members, then of the samples shown
	if in.Texts != nil {
		if words, err = tellingWords(ctx, in.Texts, slices.Concat(s.all(), s.shown())); err != nil {
			return nil, nil, err
		}
	}
	everyone := tally(in.Labels)
	for i := range s.groups {
		q := newGroup(in, &s, pics, i)
		if q.Closeness != nil {
			p.Pairs = q.Closeness.Pairs
		}
		q.Classes = classes(q.Composition, in.Labels, everyone)
		if q.Words = words[i]; q.Size != nil {
			q.Strong = words[len(s.groups)+i]
		}
		if q.Title = title(q.Classes); q.Title == "" {
			q.Title = wordTitle(q.Words)
		}
		p.Named = p.Named || q.Title != ""
		p.Random = p.Random || len(q.Random) > 0
		p.Groups = append(p.Groups, q)
		p.SeenBy[q.Side] = append(p.SeenBy[q.Side], q)
	}
	p.Data = newData(in, &s, g, pics, p.Groups)
	p.parts, err = loadParts()
	return p, report, err
}

func newGroup(in *Input, s *selection, pics *pictures, i int) group {
	q := group{Group: s.groups[i], Side: s.side(i)}
	q.Tag = fmt.Sprintf("%c%d", 'A'+q.Side, s.ranks[i]+1)
	q.Own, q.Other = in.Names[q.Side], in.Names[1-q.Side]
	for k, sample := range samples(q.Group) {
		q.Members = append(q.Members, newMember(in, pics, sample, s.members[i][k]))
	}
	if q.Drawn != nil {
		for k, e := range q.Drawn[:min(len(s.drawn[i]), maxRandom)] {
			q.Random = append(q.Random, newMember(in, pics, compare.Sample{Index: e.Index, ID: in.id(e.Index), Score: e.Score}, s.drawn[i][k]))
		}
	}
	q.Hidden = len(q.Samples) - len(q.Members)
	return q
}

func newMember(in *Input, pics *pictures, sample compare.Sample, point int) member {
	m := member{Sample: sample, Point: point}
	m.ID = clean(m.ID, maxID)
	if in.Labels != nil {
		m.Label = clean(in.Labels[m.Index], maxID)
	}
	if in.Texts != nil {
		m.Text = clean(in.Texts[m.Index], maxText)
	}
	if pics != nil {
		t := pics.thumbs[point]
		m.Thumb = &t
	}
	return m
}

// tally counts labels.
func tally(labels []string) map[string]int {
	count := map[string]int{}
	for _, l := range labels {
		count[l]++
	}
	return count
}

// classes sets the shares of a group beside those of all samples; nil without labels.
func classes(composition []compare.Share, labels []string, everyone map[string]int) []share {
	var out []share
	for _, c := range composition {
		out = append(out, share{clean(c.Label, maxID), c.Share, float64(everyone[c.Label]) / float64(len(labels))})
	}
	return out
}

// most is the share of a group from which on it is called by its label.
const most = 0.6

// title names what most of a group is, or its main parts.
func title(classes []share) string {
	const (
		least   = 0.15
		parts   = 3
		noBreak = "\u00a0" // a space that no line ends at
	)
	switch {
	case len(classes) == 0:
		return ""
	case len(classes) == 1:
		return classes[0].Label
	case classes[0].Part >= most:
		return "mostly " + classes[0].Label
	case classes[0].Part+classes[1].Part >= most:
		return classes[0].Label + " and " + classes[1].Label
	case classes[0].Part < least:
		return fmt.Sprintf("%d labels, none above %.0f %%", len(classes), math.Ceil(100*classes[0].Part))
	}
	var names []string
	for _, c := range classes[:min(len(classes), parts)] {
		names = append(names, c.Label+strings.ReplaceAll(" "+percent(c.Part), " ", noBreak))
	}
	if len(classes) > parts {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// Strongest is the group with the largest eigenvalue.
func (p *page) Strongest() group {
	return slices.MaxFunc(p.Groups, func(a, b group) int { return cmp.Compare(math.Abs(a.Eigenvalue), math.Abs(b.Eigenvalue)) })
}

// shownLabels counts the labels of the samples shown; nil where these are all that is known of the group, or have none.
func (q group) shownLabels() map[string]int {
	if q.Size == nil || len(q.Members) == 0 || q.Members[0].Label == "" {
		return nil
	}
	count := map[string]int{}
	for _, m := range q.Members {
		count[m.Label]++
	}
	return count
}

// Shown says what the samples with the highest scores are, where members are known, which may be others; else "".
func (q group) Shown() string {
	const most = 4
	var parts []string
	count := q.shownLabels()
	labels := slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	for _, label := range labels {
		parts = append(parts, percent(float64(count[label])/float64(len(q.Members)))+" "+label)
	}
	if count == nil {
		for _, w := range q.Strong {
			parts = append(parts, percent(w.Part)+" “"+w.Label+"”")
		}
	}
	if len(parts) > most {
		parts = append(parts[:most], "…")
	}
	return strings.Join(parts, ", ")
}

// Examples are two samples that stand for the group in a list, drawn at random where members were looked for.
func (q group) Examples() []member {
	list := q.Random
	if len(list) == 0 {
		list = q.Members
	}
	return list[:min(len(list), 2)]
}

// OwnShare and OtherShare are how much of the group the model that sees it sees, and the other one.
func (q group) OwnShare() float64   { return [2]float64{q.StudentShare, q.ReferenceShare}[q.Side] }
func (q group) OtherShare() float64 { return [2]float64{q.StudentShare, q.ReferenceShare}[1-q.Side] }
