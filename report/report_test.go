package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/features"
)

// rows are an embedding in memory.
type rows struct {
	x []float32
	d int
}

func (r *rows) Len() int             { return len(r.x) / r.d }
func (r *rows) Dim() int             { return r.d }
func (r *rows) Where(row int) string { return fmt.Sprintf("row %d", row) }
func (r *rows) Read(dst []float32, first int) error {
	copy(dst, r.x[first*r.d:])
	return nil
}

func normal(seed uint64, n, d int) *rows {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n*d)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return &rows{x, d}
}

// compared is a comparison of two embeddings with a common part.
func compared(t *testing.T, n int) Input {
	t.Helper()
	a, b := normal(1, n, 6), normal(2, n, 9)
	for i := range n {
		copy(b.x[i*9:i*9+3], a.x[i*6:i*6+3])
	}
	in := Input{Student: a, Reference: b, Names: [2]string{"one", "two"}, Backend: align.NewGo(1)}
	o := compare.DefaultOptions()
	o.Top, o.Samples, o.Permutations, o.Koda = 3, 8, 2, 0
	r, err := compare.Run(context.Background(), compare.Input{Student: a, Reference: b}, o, in.Backend)
	if err != nil {
		t.Fatal(err)
	}
	in.Result = r
	return in
}

func TestSelection(t *testing.T) {
	in := compared(t, 5000)
	s := choose(in.Result, 7)
	if !slices.IsSorted(s.points) || len(slices.Compact(slices.Clone(s.points))) != len(s.points) {
		t.Error("points are not different samples in rising order")
	}
	if overlap := 100; len(s.points) > wantedPoints || len(s.points) < wantedPoints-overlap { // some 290 are shown, of which about 70 are drawn again
		t.Errorf("%d points, %d are wanted", len(s.points), wantedPoints)
	}
	for g, members := range s.members {
		for k, p := range members {
			if s.points[p] != s.groups[g].Samples[k].Index {
				t.Fatalf("group %d, sample %d: point %d is sample %d, not %d", g, k, p, s.points[p], s.groups[g].Samples[k].Index)
			}
		}
	}
	for g, drawn := range s.drawn {
		if len(drawn) < heatEdge/len(s.groups) {
			t.Errorf("group %d: %d members were drawn", g, len(drawn))
		}
		for k, p := range drawn {
			if s.points[p] != s.groups[g].Drawn[k].Index {
				t.Fatalf("group %d, member %d: point %d is sample %d, not %d", g, k, p, s.points[p], s.groups[g].Drawn[k].Index)
			}
		}
	}
	if again := choose(in.Result, 7); !slices.Equal(again.points, s.points) {
		t.Error("another choice the second time")
	}
}

func TestTitle(t *testing.T) {
	many := []share{}
	for i := range 30 {
		many = append(many, share{Label: fmt.Sprint(i), Part: 1.0 / 30})
	}
	for _, c := range []struct {
		classes []share
		want    string
	}{
		{nil, ""}, {[]share{{"a", 1, 0}}, "a"}, {[]share{{"a", 0.6, 0}, {"b", 0.4, 0}}, "mostly a"},
		{[]share{{"a", 0.4, 0}, {"b", 0.3, 0}, {"c", 0.3, 0}}, "a and b"},
		{[]share{{"a", 0.34, 0}, {"b", 0.25, 0}, {"c", 0.21, 0}}, "a 34 %, b 25 %, c 21 %"},
		{[]share{{"a", 0.3, 0}, {"b", 0.25, 0}, {"c", 0.24, 0}, {"d", 0.21, 0}}, "a 30 %, b 25 %, c 24 %, …"},
		{many, "30 labels, none above 4 %"},
	} {
		if got := strings.ReplaceAll(title(c.classes), "\u00a0", " "); got != c.want {
			t.Errorf("%v is %q, not %q", c.classes, got, c.want)
		}
	}
}

// TestVerdict: a group is clear where the comparison says so; else it depends on how many times as many pairs are closer
// in the other model, and the page shows no ratio as reached that is not.
func TestVerdict(t *testing.T) {
	held := func(own, other float64, reference, clear bool) group {
		g := compare.Group{Eigenvalue: 1, Closeness: &compare.Closeness{Closer: [2]float64{1 - own, 1 - other}, Clear: clear}}
		q := group{Group: g, Own: "one", Other: "two"}
		if reference {
			q.Eigenvalue, q.Closeness.Closer = -1, [2]float64{1 - other, 1 - own}
		}
		return q
	}
	for _, c := range []struct {
		own, other float64
		clear      bool
		want       verdict
		times      string
		says       string
	}{
		{0.09, 0.19, true, heldClear, "2.1", "2.1 times as many"}, {0, 0.5, true, heldClear, "over 100", "over 100 times"},
		{0.1, 0.1999, false, heldLess, "1.9", "at least twice"}, {0.2, 0.24, false, heldNeither, "1.2", "hardly more"},
		{0.36, 0.3, false, heldNeither, "0.8", "fewer"}, {0.55, 0.9, false, heldNeither, "1.6", "than any two samples"},
		{0, 0, false, heldNeither, "1.0", "hardly more"},
	} {
		for _, reference := range []bool{false, true} {
			q := held(c.own, c.other, reference, c.clear)
			if got := judge(q.Group); got != c.want || q.Times() != c.times || !strings.Contains(q.Verdict(), c.says) {
				t.Errorf("%+v, reference %v: %d, %s times, %q", c, reference, got, q.Times(), q.Verdict())
			}
		}
	}
	size := 5000
	for _, c := range []struct {
		own, other float64
		clear      bool
		interval   *[2]float64
		says       string
	}{
		{0.1, 0.3, true, &[2]float64{2.4, 3.5}, "from 300 of its 5,000 members, drawn at random; with others it would be between ×2.4 and ×3.5 (95 % confidence): clear either way."},
		{0.1, 0.21, true, &[2]float64{1.9, 2.4}, "surely closer in one, but only just clear."},
		{0.1, 0.19, false, &[2]float64{1.7, 2.1}, "nearly clear."}, {0.1, 0.15, false, &[2]float64{1.4, 1.6}, "not clear."},
		{0.1, 0.12, false, &[2]float64{1.1, 1.3}, "next to nothing."}, {0.1, 0.11, false, &[2]float64{0.9, 1.2}, "no difference at all."},
		{0.12, 0.1, false, &[2]float64{0.7, 0.9}, "surely closer in two."}, {0.1, 0.3, true, nil, "too few to say"},
	} {
		q := held(c.own, c.other, false, c.clear)
		q.Size, q.Closeness.Judged, q.Closeness.Drawn, q.Closeness.RatioInterval = &size, 300, true, c.interval
		if got := q.Sure(); !strings.Contains(got, c.says) {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if judge(compare.Group{}) != heldNeither {
		t.Error("a verdict on what was not measured")
	}
	for x, want := range map[float64]string{0: "0 %", 0.0005: "<0.1 %", 0.0912: "9.1 %", 0.0999: "10 %", 0.5: "50 %"} {
		if got := closerText(x); got != want {
			t.Errorf("%g is %s, not %s", x, got, want)
		}
	}
	if all := ticks(); all[0] != "0.0" || all[len(all)-1] != "100.0" || along(0.001) != "0.0" || along(1) != "100.0" || along(0.01) != all[1] {
		t.Errorf("the scale: %v", all)
	}
}

func TestClean(t *testing.T) {
	long := strings.Repeat("ä", 50)
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"}, {"  a \t\n b\x00c  ", "a b c"}, {"\u202eabc\u202c", "abc"}, {"a\xff\xfeb", "ab"},
		{"<b>&", "<b>&"}, {long, strings.Repeat("ä", 20) + "…"}, {"", ""},
	} {
		if got := clean(c.in, 20); got != c.want {
			t.Errorf("%q became %q, not %q", c.in, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ a, b, wantA, wantB string }{
		{"x/pixels.npy", "clip.safetensors", "pixels", "clip"},
		{"run1/f.npy", "run2/f.npy", "run1/f", "run2/f"},
		{"f.npz:a", "f.npz:b", "f:a", "f:b"},
		{"x/f.npy", "x/f.npy", "f (A)", "f (B)"},
		{"/a/b/f.npy", "f.npy", "b/f", "f"},
	} {
		if got := Names(c.a, c.b); got != [2]string{c.wantA, c.wantB} {
			t.Errorf("%s and %s are called %q", c.a, c.b, got)
		}
	}
}

func TestImages(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	picture := image.NewNRGBA(image.Rect(0, 0, 300, 150))
	picture.SetNRGBA(0, 0, color.NRGBA{1, 2, 3, 255})
	var good bytes.Buffer
	if err := png.Encode(&good, picture); err != nil {
		t.Fatal(err)
	}
	write("good.png", good.String())
	write("torn.png", good.String()[:good.Len()/2])
	write("text.png", "not a picture")
	list := write("list.txt", "good.png\ntorn.png\ntext.png\nmissing.png\n\n")

	m, err := OpenImages(list)
	if err != nil {
		t.Fatal(err)
	}
	if m.Len() != 5 {
		t.Fatalf("%d pictures", m.Len())
	}
	small, err := m.shrunk(0, 60)
	if err != nil || small.Rect.Dx() != 60 || small.Rect.Dy() != 30 {
		t.Fatalf("%v, %v", small.Rect, err)
	}
	if c := small.RGBAAt(30, 15); c != (color.RGBA{255, 255, 255, 255}) {
		t.Errorf("a transparent picture is %v, not white", c)
	}
	for row, want := range []string{"", "torn.png", "text.png", "missing.png: no such file", "is empty"} {
		if row == 0 {
			continue
		}
		_, err := m.shrunk(row, 60)
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("row %d", row)) {
			t.Errorf("row %d: %v", row, err)
		}
	}
	if _, err := OpenImages(filepath.Join(folder, "none.txt")); err == nil {
		t.Error("a list that is not there")
	}
}

func TestCheck(t *testing.T) {
	in := compared(t, 30)
	in.Labels = make([]string, 29)
	err := in.Check()
	if !built() {
		if !errors.Is(err, ErrNotBuilt) || !strings.Contains(err.Error(), "make build") {
			t.Errorf("without the page's program: %v", err)
		}
		return
	}
	var input *align.InputError
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "29 labels for 30 samples") {
		t.Errorf("%v", err)
	}
}

// TestRender: whatever names and labels say, the page has two scripts, its data and its program, and the policy names
// the one that runs.
func TestRender(t *testing.T) {
	in := compared(t, 40)
	const hostile = "</script><script>alert(1)</script><!-- \u2028 ]]> \" ' & {{.}}"
	in.Names = [2]string{hostile, "b"}
	in.Command = hostile
	for i := range in.Student.Len() {
		in.Labels = append(in.Labels, hostile)
		in.Texts = append(in.Texts, fmt.Sprint(hostile, i))
	}
	p, _, err := build(context.Background(), &in)
	if errors.Is(err, ErrNotBuilt) {
		p.parts = parts{Script: "0", Style: "a{}", Policy: "default-src 'none'"}
	} else if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := p.render(&out); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	if n := strings.Count(page, "</script"); n != 2 {
		t.Errorf("%d closing script tags", n)
	}
	if strings.Contains(page, "<script>alert") {
		t.Error("a text is mark-up")
	}
	if !strings.Contains(html.UnescapeString(page), hash([]byte(p.Style))) && built() {
		t.Error("the policy does not admit the style sheet")
	}
}

func TestOpenImagesArray(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.npy")
	header := "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4, 3), }\n"
	data := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), 0)
	data = append(append(data, header...), bytes.Repeat([]byte{10, 20, 30}, 24)...)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := OpenImages(path)
	if err != nil {
		t.Fatal(err)
	}
	small, err := m.shrunk(1, 96)
	if err != nil || small.Rect.Dx() != 4 || small.Rect.Dy() != 3 || small.RGBAAt(2, 1) != (color.RGBA{10, 20, 30, 255}) {
		t.Errorf("%v %v %v", small.Rect, small.RGBAAt(2, 1), err)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, data[:len(data)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := features.OpenImages(path); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a torn array: %v", err)
	}
}

// TestTellingWords: a group is named by the words that its texts have and the others do not, not by those that all
// have; and the same way each time.
func TestTellingWords(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	var texts []string
	groups := make([][]int, 4)
	for i := range 4000 {
		mood, thing := pick("Happy", "tired", "calm"), pick("camera", "frying pan", "pan flute", "desk", "golden throne")
		texts = append(texts, fmt.Sprintf("A %s person, with the %s (it's no. %d).", mood, thing, i))
		if len(groups[0]) < 100 && thing == "golden throne" && (mood != "tired" || i%3 == 0) {
			groups[0] = append(groups[0], i)
		}
		if len(groups[1]) < 60 && (thing == "camera" || thing == "desk" && i%2 == 0) {
			groups[1] = append(groups[1], i)
		}
		if i%50 == 0 {
			groups[2] = append(groups[2], i) // at random
		}
	}
	words, err := tellingWords(context.Background(), texts, groups)
	if err != nil {
		t.Fatal(err)
	}
	for g, want := range []string{"mostly “golden throne”", "mostly “camera”", "", ""} {
		if got := wordTitle(words[g]); got != want {
			t.Errorf("group %d is %q of %v, not %q", g, got, words[g], want)
		}
	}
	if w := words[0][0]; w.Part != 1 || w.Everyone < 0.15 || w.Everyone > 0.25 {
		t.Errorf("%+v", w)
	}
	if again, _ := tellingWords(context.Background(), texts, groups); fmt.Sprint(again) != fmt.Sprint(words) {
		t.Errorf("%v the second time, not %v", again, words)
	}
	weak := []share{{"a", 0.3, 0}, {"b", 0.25, 0}, {"c", 0.2, 0}, {"d", 0.2, 0}}
	for _, c := range []struct {
		words []share
		want  string
	}{{nil, ""}, {weak, "more often “a”, “b”, “c”"}, {[]share{{"x", 1, 0}, {"y", 0.9, 0}, {"z", 0.2, 0}}, "mostly “x” “y”"}} {
		if got := wordTitle(c.words); got != c.want {
			t.Errorf("%v: %q, not %q", c.words, got, c.want)
		}
	}
	if got := (group{Strong: append([]share{{"x", 0.5, 0}}, weak...)}).Shown(); got != "50 % “x”, 30 % “a”, 25 % “b”, 20 % “c”, …" {
		t.Error(got)
	}
	if got := strings.Join(wordsOf("It's «ÄPFEL»-pie, a 'quoted' T-shirt/top - x2!\xff"), " "); got != "it's äpfel pie a quoted t-shirt top x2" {
		t.Error(got)
	}
	// 10 of 20 and 10 of 80: 2 Σ observed ln(observed/expected)
	if got := keyness(10, 20, 10, 80); math.Abs(got-12.0714) > 1e-3 {
		t.Error(got)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tellingWords(canceled, texts, groups); err == nil {
		t.Error("a cancelled search ended without an error")
	}
}
