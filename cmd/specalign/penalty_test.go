package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/csrc"
)

// embed returns rows with groups that the reference sees and the student partly does not.
func embed(seed uint64, rows, cols, merged int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	centres := make([]float32, 6*cols)
	for i := range centres {
		centres[i] = float32(rng.NormFloat64())
	}
	x := make([]float32, rows*cols)
	for i := range x {
		group := i / cols % 6 / merged
		x[i] = centres[group*cols+i%cols] + 0.5*float32(rng.NormFloat64())
	}
	return x
}

// save writes a matrix and returns the file's name.
func save(t *testing.T, name string, rows, cols int, x []float32) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	w, err := features.Create(path)
	if err == nil {
		err = w.Write(rows, cols, x)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// plain computes the same by the plain Go engine.
func plain(t *testing.T, cfg align.Config, rows, d1, d2 int, x, y []float32) (*align.Result, []float32) {
	t.Helper()
	s, err := align.NewSession(cfg, align.NewGo(1))
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := func(x []float32) (b []byte) {
		for _, v := range x {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		return b
	}
	grad := make([]float32, rows*d1)
	r, err := s.Step(t.Context(), align.Features{Rows: rows, Cols: d1, Type: align.Float32, Data: bytesOf(x)},
		align.Features{Rows: rows, Cols: d2, Type: align.Float32, Data: bytesOf(y)}, grad)
	if err != nil {
		t.Fatal(err)
	}
	return r, grad
}

// The keys of the document, which scripts rely on.
var penaltyKeys = []string{
	"schema_version", "n", "student_dim", "reference_dim", "settings", "route", "device", "isa", "seconds", "warnings",
	"value", "parts", "eigenvalues", "gap", "residual", "gradient_error", "products", "converged", "zero_rows",
	"gradient_norm",
}

func TestPenalty(t *testing.T) {
	const n, d1, d2 = 60, 24, 30
	x, y := embed(1, n, d1, 2), embed(2, n, d2, 1)
	a, b := save(t, "a.npy", n, d1, x), save(t, "b.npy", n, d2, y)
	config := filepath.Join(t.TempDir(), "c.yaml")
	write(t, config, "# a question\nterms:\n  - {objective: ky_fan, k: 2, weight: 1.5}\n  - objective: relational_kl\n    weight: 0.5\n")
	for _, c := range []struct {
		args   []string
		change func(*align.Config)
	}{
		{nil, func(c *align.Config) {}},
		{[]string{"--k", "3", "--eta=0.5", "--center", "--threads", "1"}, func(c *align.Config) { c.K, c.Eta, c.Center = 3, 0.5, true }},
		{[]string{"--kernel", "gaussian", "--sigma", "5", "--objective", "frobenius"}, func(c *align.Config) {
			c.Kernel, c.Sigma, c.Objective = align.KernelGaussian, &align.Sigma{Value: 5}, align.ObjectiveFrobenius
		}},
		{[]string{"--student-kernel", "laplacian", "--student-sigma", "median", "--objective", "spectral_radius", "--device", "cpu"}, func(c *align.Config) {
			c.StudentKernel, c.StudentSigma, c.Objective = align.KernelLaplacian, &align.Sigma{Rule: align.SigmaMedian}, align.ObjectiveSpectralRadius
		}},
		{[]string{"--config", config, "--seed", "7"}, func(c *align.Config) {
			c.Terms = []align.Term{{Objective: align.ObjectiveKyFan, K: 2, Weight: 1.5}, {Objective: align.ObjectiveRelationalKL, Weight: 0.5}}
			c.Seed = 7
		}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			cfg := align.DefaultConfig()
			c.change(&cfg)
			want, wantGrad := plain(t, cfg, n, d1, d2, x, y)
			gradOut := filepath.Join(t.TempDir(), "g.npy")
			args := append([]string{"penalty", a, b, "--grad-out", gradOut}, c.args...)
			o := specalign(t, nil, append(args, "--json")...)
			if o.code != 0 || o.stderr != "" {
				t.Fatalf("%+v", o)
			}
			var keys map[string]any
			var r penaltyReport
			if err := json.Unmarshal([]byte(o.stdout), &keys); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
				t.Fatal(err)
			}
			for _, k := range penaltyKeys {
				if _, ok := keys[k]; !ok {
					t.Errorf("%s is missing in %v", k, slices.Sorted(maps.Keys(keys)))
				}
			}
			if r.SchemaVersion != 1 || r.N != n || r.StudentDim != d1 || r.ReferenceDim != d2 || r.Device != "cpu" || r.ISA != csrc.Levels()[0] || r.Warnings == nil {
				t.Errorf("%+v", r)
			}
			if math.Abs(r.Value-want.Value) > 1e-5*want.Value || !r.Converged {
				t.Errorf("value %v, the plain engine's is %v", r.Value, want.Value)
			}
			if (r.Eigenvalues == nil) != (want.Eigenvalues == nil) || (r.Gap == nil) != (want.Gap == nil) {
				t.Errorf("eigenvalues %v, gap %v; want %v, %v", r.Eigenvalues, r.Gap, want.Eigenvalues, want.Gap)
			}
			checkGradient(t, gradOut, n, d1, wantGrad, r.GradientNorm)
			checkSettings(t, r.Settings, cfg)

			o = specalign(t, nil, args...) // for a person, over the file that is there
			if o.code != 0 || o.stderr != "" || !strings.HasPrefix(o.stdout, "penalty      ") || !strings.Contains(o.stdout, "\ndevice       cpu, ") || !strings.Contains(o.stdout, "written to "+gradOut) {
				t.Errorf("%+v", o)
			}
		})
	}
}

func checkGradient(t *testing.T, path string, rows, cols int, want []float32, norm float64) {
	t.Helper()
	f, err := features.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.Len() != rows || f.Dim() != cols || f.Type() != align.Float32 {
		t.Fatalf("the gradient is %d x %d %v", f.Len(), f.Dim(), f.Type())
	}
	got := make([]float32, rows*cols)
	if err := f.Read(got, 0); err != nil {
		t.Fatal(err)
	}
	diff, sum := 0.0, 0.0
	for i, w := range want {
		g := float64(got[i])
		diff += (g - float64(w)) * (g - float64(w))
		sum += g * g
	}
	if !(math.Sqrt(diff) <= 1e-3*math.Sqrt(sum)) || math.Abs(math.Sqrt(sum)-norm) > 1e-6*norm {
		t.Errorf("the gradient is %v off, its norm %v, said to be %v", math.Sqrt(diff/sum), math.Sqrt(sum), norm)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o044 == 0 && umask()&0o044 != 0o044 {
		t.Errorf("the file's mode is %v, %v", st.Mode(), err)
	}
}

// umask finds out the process's by making a file.
func umask() os.FileMode {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("specalign-umask-%d", os.Getpid())), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return 0o077
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	st, err := f.Stat()
	if err != nil {
		return 0o077
	}
	return 0o666 &^ st.Mode().Perm()
}

// checkSettings: what is printed as resolved has no rule left in it, and gives the same settings again.
func checkSettings(t *testing.T, got, asked align.Config) {
	t.Helper()
	for side, s := range []*align.Sigma{got.StudentSigma, got.ReferenceSigma} {
		if needs := asked.KernelOf(side).NeedsSigma(); needs != (s != nil) || needs && (s.Rule != "" || !(s.Value > 0)) {
			t.Errorf("side %d: sigma is %v", side, s)
		}
	}
	if got.Approximation != align.ApproximationExact || got.Threads < 1 || got.Device != "cpu" || got.Eta != asked.Eta || got.Seed != asked.Seed || got.Center != asked.Center {
		t.Errorf("settings %+v", got)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again, err := align.ParseConfig(text)
	if err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("read again they are %+v, %v", again, err)
	}
}

// TestISA: every level can be asked for, and is told.
func TestISA(t *testing.T) {
	x := save(t, "a.npy", 20, 6, embed(1, 20, 6, 2))
	y := save(t, "b.npy", 20, 5, embed(2, 20, 5, 1))
	for _, level := range csrc.Levels() {
		o := specalign(t, []string{"SPECALIGN_ISA=" + level, "SPECALIGN_THREADS=1"}, "penalty", x, y, "--json")
		var r penaltyReport
		if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || r.ISA != level || r.Settings.Threads != 1 {
			t.Errorf("%s: %+v %v", level, o, err)
		}
	}
	if o := specalign(t, []string{"SPECALIGN_ISA=amx-emulated"}, "penalty", x, y); o.code != 0 || !strings.Contains(o.stdout, "cpu, amx-emulated") {
		t.Errorf("%+v", o)
	}
	specalign(t, []string{"SPECALIGN_ISA=sse9"}, "penalty", x, y).refused(t, 2, `SPECALIGN_ISA is "sse9", but this CPU has `+strings.Join(csrc.Levels(), ", "))
	specalign(t, []string{"SPECALIGN_THREADS=many"}, "penalty", x, y).refused(t, 2, `SPECALIGN_THREADS is "many"`)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPenaltyBadInput(t *testing.T) {
	const n, d = 20, 6
	x := embed(1, n, d, 2)
	good := save(t, "a.npy", n, d, x)
	short := save(t, "short.npy", n-1, d, x[:(n-1)*d])
	nan := slices.Clone(x)
	nan[17*d+3] = float32(math.NaN())
	holed := save(t, "nan.npy", n, d, nan)
	nan[17*d+3] = 1e30
	huge := save(t, "huge.npy", n, d, nan)
	doubles := []byte("\x93NUMPY\x01\x00\x46\x00" + fmt.Sprintf("%-69s\n", "{'descr': '<f8', 'fortran_order': False, 'shape': (20, 6), }"))
	for i, v := range x {
		if i == 17*d+3 {
			doubles = binary.LittleEndian.AppendUint64(doubles, math.Float64bits(1e300))
			continue
		}
		doubles = binary.LittleEndian.AppendUint64(doubles, math.Float64bits(float64(v)))
	}
	wide := filepath.Join(t.TempDir(), "wide.npy")
	write(t, wide, string(doubles))
	tall := save(t, "tall.npy", 2e6, 1, make([]float32, 2e6))
	dir := t.TempDir()
	text := filepath.Join(dir, "text.npy")
	write(t, text, "these are no numbers")
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut.npy")
	write(t, cut, string(whole[:len(whole)-1]))
	config := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	out := filepath.Join(dir, "g.npy")
	write(t, out, "the old file")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{good, short}, "the student has 20 rows and the reference 19"},
		{[]string{holed, good}, "row 17 of the student features is not finite (column 3 is NaN)"},
		{[]string{good, holed}, "row 17 of the reference features is not finite"},
		{[]string{good, huge, "--kernel", "linear"}, "row 17 of the reference features is so large"},
		{[]string{wide, good}, "row 17 of the student features: column 3 is 1e+300, which is too large for float32 (at most 3.4e+38); scale the features down"},
		{[]string{tall, tall, "--kernel", "gaussian", "--sigma", "1", "--approximation", "exact"}, "2000000 rows of 1 and 1 columns may take "},
		{[]string{good, dir + "/none.npy"}, "reference: " + dir + "/none.npy: no such file or directory"},
		{[]string{text, good}, "student: " + text + ": it does not begin as an .npy file does"},
		{[]string{good, cut}, "not all of it was written"},
		{[]string{good, good + ":key"}, "a .npy file has no keys"},
		{[]string{good, "b.csv"}, "reference: b.csv: unknown kind of file"},
		{[]string{good, good, "--kernel", "cubic"}, `kernel is "cubic"; give cosine`},
		{[]string{good, good, "--k", "0"}, `--k is "0"; give a whole number, 1 or more`},
		{[]string{good, good, "--k", "two"}, `--k is "two"; give a whole number, 1 or more`},
		{[]string{good, good, "--k", "2.5"}, `--k is "2.5"; give a whole number, 1 or more`},
		{[]string{good, good, "--p", "3", "--objective", "schatten"}, "p is 3; give 1 to 2"},
		{[]string{good, good, "--center=2"}, "give true or false"},
		{[]string{good, good, "--sigma", "3"}, "cosine and linear kernels have no bandwidth"},
		{[]string{good, good, "--sigma", "wide", "--kernel", "gaussian"}, `sigma is "wide"; give median, match`},
		{[]string{good, good, "--device", "cuda"}, "device is cuda, but this build has no GPU support"},
		{[]string{good, good, "--device", "cuda:1"}, "device is cuda:1, but"},
		{[]string{good, good, "--device", "tpu"}, `device is "tpu"; give auto, cpu`},
		{[]string{good, good, "--threads", "100000"}, "threads is 100000"},
		{[]string{good, good, "--objectiv", "ky_fan"}, "there is no flag --objectiv; did you mean --objective?"},
		{[]string{good, good, good}, "not 3;"},
		{[]string{good, good, "--grad-out", good}, "is one of the inputs"},
		{[]string{good, good, "--grad-out", dir + "/no/g.npy"}, "--grad-out: cannot write " + dir + "/no/g.npy: no such file"},
		{[]string{good, good, "--grad-out", dir + "/g.csv"}, "ends in .npy"},
		{[]string{good, good, "--config", dir + "/none.yaml"}, "none.yaml: no such file"},
		{[]string{good, good, "--config", config("typo.yaml", "kernel: cosine\nobjektive: ky_fan\n")}, `typo.yaml:2:1: there is no setting "objektive"`},
		{[]string{good, good, "--config", config("term.yaml", "terms:\n  - {objective: ky_fan, weight: 1}\n  - {objective: frobenius, wait: 1}\n")}, `term.yaml:3:28: there is no setting "wait"`},
		{[]string{good, good, "--config", config("twice.yaml", "k: 3\nk: 4\n")}, `twice.yaml:2:1: "k" is given twice`},
		{[]string{good, good, "--config", config("list.yaml", "- k\n")}, "list.yaml:1:1: a mapping is needed"},
		{[]string{good, good, "--config", config("flat.yaml", "terms: [ky_fan]\n")}, "flat.yaml:1:9: a term is a mapping"},
		{[]string{good, good, "--config", config("empty.yaml", "# nothing\n")}, "empty.yaml"},
		{[]string{good, good, "--config", config("two.yaml", "k: 3\n---\nk: 4\n")}, "more than one YAML document"},
		{[]string{good, good, "--config", config("broken.yaml", "k: [3\n")}, "broken.yaml"},
		{[]string{good, good, "--config", config("bomb.yaml", "sigma: &a 3\nstudent_sigma: *a\n")}, "bomb.yaml:1:8: anchors and aliases are not taken"},
		{[]string{good, good, "--config", config("terms.yaml", "terms: [{objective: ky_fan, weight: 1}]\n"), "--k", "3"}, "put them into the terms"},
		{[]string{good, good, "--config", config("json.json", `{"k": "three"}`)}, "k"},
	} {
		t.Run(strings.Join(c.args[1:], " "), func(t *testing.T) {
			args := append([]string{"penalty"}, c.args...)
			if !slices.Contains(args, "--grad-out") {
				args = append(args, "--grad-out", out)
			}
			specalign(t, nil, append(args, "--json")...).refused(t, 2, c.want)
		})
	}
	// whatever failed left the old file alone, and nothing beside it
	if b, err := os.ReadFile(out); err != nil || string(b) != "the old file" {
		t.Errorf("the old file now holds %q, %v", b, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestFullDisk: what cannot be printed is an error.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here: ", err)
	}
	defer func() { _ = full.Close() }()
	x := save(t, "a.npy", 20, 6, embed(1, 20, 6, 2))
	for _, flags := range [][]string{{}, {"--json"}} {
		cmd := command(t.Context(), nil, append([]string{"penalty", x, x}, flags...)...)
		var stderr strings.Builder
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%v: exit %d, %q", flags, cmd.ProcessState.ExitCode(), stderr.String())
		}
	}
}

// TestZeroRows: degenerate input is reported in both outputs, and is no error.
func TestZeroRows(t *testing.T) {
	x := embed(1, 20, 6, 2)
	clear(x[6:12])
	a := save(t, "a.npy", 20, 6, x)
	var r penaltyReport
	if o := specalign(t, nil, "penalty", a, a, "--json"); json.Unmarshal([]byte(o.stdout), &r) != nil || r.ZeroRows != 2 || len(r.Warnings) != 1 || r.Value > 1e-6 {
		t.Errorf("%+v", o)
	}
	if o := specalign(t, nil, "penalty", a, a); o.code != 0 || !strings.Contains(o.stdout, "\nwarning ") {
		t.Errorf("%+v", o)
	}
}

// TestSettingsTable: every setting but the list of terms has a flag.
func TestSettingsTable(t *testing.T) {
	want := []string{"terms"}
	for _, s := range settings {
		want = append(want, s.name)
	}
	got := []string{}
	of := reflect.TypeFor[align.Config]()
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		got = append(got, name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("align.Config has %v, the table %v", got, want)
	}
}
