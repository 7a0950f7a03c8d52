package shards

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// embedding is rows in memory, in shards.
type embedding struct {
	compare.Memory
	shards []int
	name   string
}

func (e *embedding) Shards() []int { return e.shards }

func (e *embedding) names() []string {
	var out []string
	for i := range e.shards {
		out = append(out, fmt.Sprintf("%s-%03d.npy", e.name, i))
	}
	return out
}

// shard returns the rows of the shard of that name.
func (e *embedding) shard(name string) *compare.Memory {
	at := 0
	for i, n := range e.shards {
		if e.names()[i] == name {
			return &compare.Memory{Data: e.Data[at*e.Columns : (at+n)*e.Columns], Columns: e.Columns}
		}
		at += n
	}
	return nil
}

// data are two embeddings of clustered samples in shards.
type data struct{ student, reference *embedding }

func made(shards []int, d1, d2 int) data {
	n := 0
	for _, s := range shards {
		n += s
	}
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	side := func(name string, d, groups int) *embedding {
		centres := make([]float32, groups*d)
		for i := range centres {
			centres[i] = float32(rng.NormFloat64())
		}
		e := &embedding{compare.Memory{Data: make([]float32, n*d), Columns: d}, shards, name}
		for i := range e.Data {
			e.Data[i] = centres[i/d%groups*d+i%d] + 0.5*float32(rng.NormFloat64())
		}
		return e
	}
	return data{side("student", d1, 4), side("reference", d2, 6)}
}

func (d data) open(s Shard) (student, reference compare.Rows, closeRows func() error, err error) {
	return d.student.shard(s.Student), d.reference.shard(s.Reference), func() error { return nil }, nil
}

func (d data) plan(t testing.TB, o compare.Options) *Plan {
	t.Helper()
	b := align.NewGo(1)
	p, err := NewPlan(context.Background(), [2]compare.Sharded{d.student, d.reference}, [2][]string{d.student.names(), d.reference.names()}, o, b)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePlan(File{"plan", encoded})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p, again) {
		t.Fatal("a plan that was written and read is another one")
	}
	return again
}

func (d data) pass(ids ...int) Pass { return Pass{Shards: ids, Open: d.open, Backend: align.NewGo(1)} }

func options(change func(o *compare.Options)) compare.Options {
	o := compare.DefaultOptions()
	o.Top, o.Samples, o.Permutations, o.Certify, o.ValidateGroups = 4, 5, 3, false, false
	if change != nil {
		change(&o)
	}
	return o
}

// scattered divides shards at random into groups, and merges what f makes of them in random pairs.
func scattered(t *testing.T, rng *rand.Rand, shards int, f func(ids []int) ([]byte, error)) []byte {
	t.Helper()
	groups := make([][]int, 1+rng.IntN(shards))
	for _, i := range rng.Perm(shards) {
		g := rng.IntN(len(groups))
		groups[g] = append(groups[g], i)
	}
	var files []File
	for _, ids := range groups {
		if len(ids) == 0 {
			continue
		}
		b, err := f(ids)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{fmt.Sprint(ids), b})
	}
	for len(files) > 1 {
		rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		count := 2 + rng.IntN(len(files)-1)
		b, err := Merge(files[:count]...)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files[count:], File{"merged", b})
	}
	return files[0].Data
}

// TestSameBits: over shards, however they are divided and merged, the result is that of one process to the last bit.
func TestSameBits(t *testing.T) {
	ctx := context.Background()
	many := make([]int, 75)
	for i := range many {
		many[i] = 3 + i%5
	}
	for _, c := range []struct {
		name   string
		shards []int
		d1, d2 int
		change func(o *compare.Options)
	}{
		{"cosine, validated", []int{40, 1, 30, 77, 20, 9, 14, 33, 5, 60, 61}, 8, 12, func(o *compare.Options) { o.ValidateGroups = true }},
		{"one shard", []int{150}, 8, 12, nil},
		{"75 shards", many, 5, 7, nil},
		{"lanczos", []int{60, 70, 80}, 150, 130, nil},
		{"centred, linear, eta", []int{50, 60, 70, 20, 30, 40, 10, 11, 12}, 9, 6, func(o *compare.Options) {
			o.Center, o.Kernel, o.Eta, o.Koda = true, align.KernelLinear, 0.5, 0
		}},
		{"nystrom", []int{50, 60, 70, 20}, 9, 6, func(o *compare.Options) {
			o.Kernel, o.Approximation, o.NumFeatures, o.Center = align.KernelGaussian, align.ApproximationNystrom, 20, true
		}},
		{"rff, eta 0", []int{50, 60, 70, 20}, 9, 6, func(o *compare.Options) {
			o.Kernel, o.Approximation, o.NumFeatures, o.Eta = align.KernelLaplacian, align.ApproximationRFF, 20, 0
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := made(c.shards, c.d1, c.d2)
			o := options(c.change)
			want, err := compare.Run(ctx, compare.Input{Student: d.student, Reference: d.reference}, o, align.NewGo(2))
			if err != nil {
				t.Fatal(err)
			}
			p := d.plan(t, o)
			rng := rand.New(rand.NewPCG(3, 4))
			var before [2][]byte
			for round := range 2 {
				moments := File{"moments", scattered(t, rng, len(c.shards), func(ids []int) ([]byte, error) { return p.Partial(ctx, d.pass(ids...)) })}
				directions, err := p.Spectrum(ctx, moments)
				if err != nil {
					t.Fatal(err)
				}
				f := File{"directions", directions}
				scores := File{"scores", scattered(t, rng, len(c.shards), func(ids []int) ([]byte, error) { return p.Top(ctx, f, d.pass(ids...)) })}
				if round > 0 && (!bytes.Equal(moments.Data, before[0]) || !bytes.Equal(scores.Data, before[1])) {
					t.Fatal("another division gives other bytes")
				}
				before = [2][]byte{moments.Data, scores.Data}
				got, err := p.Conclude(ctx, Conclusion{
					Moments: moments, Directions: f, Scores: scores, Input: compare.Input{Student: d.student, Reference: d.reference}, Backend: align.NewGo(2),
				})
				if err != nil {
					t.Fatal(err)
				}
				same(t, got, want)
			}
		})
	}
}

// same compares two results but for times and warnings.
func same(t *testing.T, got, want *compare.Result) {
	t.Helper()
	var texts [2]string
	for i, r := range []*compare.Result{got, want} {
		c := *r
		c.Seconds, c.Stages, c.Warnings = 0, nil, nil
		text, err := json.MarshalIndent(&c, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	if texts[0] != texts[1] {
		a, b := strings.Split(texts[0], "\n"), strings.Split(texts[1], "\n")
		for i := range a {
			if i >= len(b) || a[i] != b[i] {
				t.Fatalf("line %d: %s; one process: %s", i, a[i], b[min(i, len(b)-1)])
			}
		}
		t.Fatal("the result is another one")
	}
}

// TestEqualInputs: no directions, and exactly 0.
func TestEqualInputs(t *testing.T) {
	ctx := context.Background()
	d := made([]int{20, 30}, 6, 6)
	d.reference.Data = slices.Clone(d.student.Data)
	p := d.plan(t, options(nil))
	m, err := p.Partial(ctx, d.pass(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	directions, err := p.Spectrum(ctx, File{"moments", m})
	if err != nil {
		t.Fatal(err)
	}
	scores, err := p.Top(ctx, File{"directions", directions}, d.pass(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Conclude(ctx, Conclusion{Moments: File{"m", m}, Directions: File{"d", directions}, Scores: File{"s", scores}, Backend: align.NewGo(1)})
	if err != nil || r.SpecDiff != 0 || r.Route != "identical inputs" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestHostile: each is an error of the input that names what is wrong.
func TestHostile(t *testing.T) {
	ctx := context.Background()
	d := made([]int{20, 30, 25}, 6, 5)
	p := d.plan(t, options(nil))
	other := d.plan(t, options(func(o *compare.Options) { o.Eta = 0.5 }))
	partial := func(p *Plan, ids ...int) File {
		b, err := p.Partial(ctx, d.pass(ids...))
		if err != nil {
			t.Fatal(err)
		}
		return File{fmt.Sprintf("part%v", ids), b}
	}
	a, b, c := partial(p, 0), partial(p, 1, 2), partial(p, 2)
	whole, err := Merge(a, b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Spectrum(ctx, File{"moments", whole})
	if err != nil {
		t.Fatal(err)
	}
	directions := File{"directions", text}
	second, err := other.Spectrum(ctx, partial(other, 0, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	moved := made([]int{20, 30, 25}, 6, 5)
	moved.reference.Data[22*5+3] += 1e-3
	wide, short := moved, moved
	wide.student = &embedding{compare.Memory{Data: moved.student.Data, Columns: 3}, []int{40, 60, 50}, "student"}
	short.student = &embedding{compare.Memory{Data: moved.student.Data, Columns: 6}, []int{20, 29, 26}, "student"}
	for _, k := range []struct {
		name string
		call func() ([]byte, error)
		want string
	}{
		{"twice in a merge", func() ([]byte, error) { return Merge(a, b, c) }, "shard 2 (student-002.npy) is in both part[1 2] and part[2]"},
		{"the same file twice", func() ([]byte, error) { return Merge(a, a) }, "shard 0 (student-000.npy) is in both"},
		{"twice in a pass", func() ([]byte, error) { return p.Partial(ctx, d.pass(1, 1)) }, "shard 1 (student-001.npy) is given twice"},
		{"none", func() ([]byte, error) { return p.Partial(ctx, d.pass()) }, "no shard is given"},
		{"no such shard", func() ([]byte, error) { return p.Partial(ctx, d.pass(3)) }, "there is no shard 3; the plan has 0 to 2"},
		{"a gap", func() ([]byte, error) { return p.Spectrum(ctx, b) }, "part[1 2] lacks shard 0 (student-000.npy)"},
		{"other settings", func() ([]byte, error) { return Merge(a, partial(other, 1)) }, "eta is 1 there and 0.5 here"},
		{"another plan", func() ([]byte, error) { return other.Spectrum(ctx, File{"moments", whole}) }, "moments was made by another plan: eta is 1 there"},
		{"damaged", func() ([]byte, error) { return Merge(File{"m", damaged}) }, "m is damaged: its checksum is wrong"},
		{"truncated", func() ([]byte, error) { return Merge(File{"m", whole[:len(whole)-9]}) }, "m is not complete"},
		{"no file of ours", func() ([]byte, error) { return Merge(File{"m", []byte("\x93NUMPY")}) }, "m is no file of specalign shards"},
		{"a plan in a merge", func() ([]byte, error) { return Merge(directions) }, "directions holds directions, which cannot be merged"},
		{"directions for moments", func() ([]byte, error) { return p.Spectrum(ctx, directions) }, "holds directions, not moments"},
		{"directions of another plan", func() ([]byte, error) { return p.Top(ctx, File{"d", second}, d.pass(0)) }, "d was made by another plan: eta is 0.5"},
		{"changed between the passes", func() ([]byte, error) { return p.Top(ctx, directions, moved.pass(0, 1)) }, "shard 1 (student-001.npy) changed between the passes: the reference's rows"},
		{"of another width", func() ([]byte, error) { return p.Partial(ctx, wide.pass(1)) }, "shard 1 (student-001.npy) has rows of 3 numbers, but the plan has 6"},
		{"shorter", func() ([]byte, error) { return p.Partial(ctx, short.pass(1)) }, "shard 1 (student-001.npy) has 29 rows, but 30"},
	} {
		_, err := k.call()
		if input := new(align.InputError); !errors.As(err, &input) || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v; want %q", k.name, err, k.want)
		}
	}
}

// TestPlanRefuses: what does not fit together is found before any pass.
func TestPlanRefuses(t *testing.T) {
	d := made([]int{20, 30}, 6, 5)
	for _, k := range []struct {
		name   string
		shards []int
		names  []string
		change func(o *compare.Options)
		want   string
	}{
		{"other rows", []int{21, 29}, nil, nil, "shard 0 has 21 rows in student-000.npy, but 20 in reference-000.npy"},
		{"other shards", []int{50}, nil, nil, "the student has 1 shards and the reference 2"},
		{"twice", []int{20, 30}, []string{"a", "a"}, nil, "a is given twice"},
		{"exact", []int{20, 30}, nil, func(o *compare.Options) { o.Kernel = align.KernelGaussian }, "an exact Gaussian or Laplacian kernel needs all rows in one process"},
	} {
		s := &embedding{d.student.Memory, k.shards, "student"}
		names := s.names()
		if k.names != nil {
			names = k.names
		}
		_, err := NewPlan(context.Background(), [2]compare.Sharded{s, d.reference}, [2][]string{names, d.reference.names()}, options(k.change), align.NewGo(1))
		if input := new(align.InputError); !errors.As(err, &input) || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v; want %q", k.name, err, k.want)
		}
	}
}

// FuzzFile: whatever is in a file is an error of the input or is read; with a checksum that holds, so that what lies
// behind it is tried.
func FuzzFile(f *testing.F) {
	ctx := context.Background()
	d := made([]int{9, 8, 7}, 3, 2)
	o := options(func(o *compare.Options) { o.Permutations, o.ValidateGroups, o.Top, o.Samples = 0, false, 2, 2 })
	p := d.plan(f, o)
	encoded, err := p.Encode()
	if err != nil {
		f.Fatal(err)
	}
	m, err := p.Partial(ctx, d.pass(0, 1, 2))
	if err != nil {
		f.Fatal(err)
	}
	directions, err := p.Spectrum(ctx, File{"m", m})
	if err != nil {
		f.Fatal(err)
	}
	scores, err := p.Top(ctx, File{"d", directions}, d.pass(0, 1, 2))
	if err != nil {
		f.Fatal(err)
	}
	half, err := p.Partial(ctx, d.pass(0, 2))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{encoded, m, directions, scores, half} {
		f.Add(seed[8:], true)
		f.Add(seed[8:], false)
	}
	f.Fuzz(func(t *testing.T, text []byte, right bool) {
		text = append([]byte(magic), text...)
		if at := len(text) - trailer; right && at >= preamble {
			header := min(binary.LittleEndian.Uint64(text[16:]), uint64(at-preamble))
			binary.LittleEndian.PutUint64(text[16:], header)
			binary.LittleEndian.PutUint64(text[24:], uint64(at-preamble)-header)
			binary.LittleEndian.PutUint32(text[at:], crc32.Checksum(text[:at], castagnoli))
		}
		file := File{"file", text}
		check := func(err error) {
			if input := new(align.InputError); err != nil && !errors.As(err, &input) {
				t.Fatal(err)
			}
		}
		_, err := ParsePlan(file)
		check(err)
		_, err = parseDirections(file)
		check(err)
		if out, err := Merge(file); err == nil {
			if again, err := Merge(File{"again", out}); err != nil || !bytes.Equal(out, again) {
				t.Fatalf("merged once more: %v", err)
			}
		} else {
			check(err)
		}
		_, err = p.Conclude(ctx, Conclusion{Moments: file, Directions: File{"d", directions}, Scores: File{"s", scores}, Backend: align.NewGo(1)})
		check(err)
		_, err = p.Conclude(ctx, Conclusion{Moments: File{"m", m}, Directions: File{"d", directions}, Scores: file, Backend: align.NewGo(1)})
		check(err)
	})
}
