package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/features"
)

// planted writes two embeddings of n samples: the student sees group 0 of three and not group 1, the reference the
// converse; both see group 2.
func planted(t *testing.T, n int) (student, reference string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	dims := [2]int{12, 20}
	var names [2]string
	for side, d := range dims {
		centre := make([][]float64, 3)
		for g := range centre {
			for range d {
				centre[g] = append(centre[g], rng.NormFloat64())
			}
		}
		x := make([]float32, 0, n*d)
		for i := range n {
			for j := range d {
				v := rng.NormFloat64()
				if g := i % 4; g < 3 && g != 1-side {
					v = 0.15*v + 2*centre[g][j]
				}
				x = append(x, float32(v))
			}
		}
		names[side] = filepath.Join(t.TempDir(), []string{"student.npy", "reference.npy"}[side])
		w, err := features.Create(names[side])
		if err == nil {
			err = w.Write(n, d, x)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return names[0], names[1]
}

func listFile(t *testing.T, n int, line func(i int) string) string {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, line(i))
	}
	path := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCompare(t *testing.T) {
	const n = 200
	student, reference := planted(t, n)
	ids := listFile(t, n, func(i int) string { return fmt.Sprintf("sample-%d", i) })
	labels := listFile(t, n, func(i int) string { return fmt.Sprintf("group %d", i%4) })
	table := filepath.Join(t.TempDir(), "groups.csv")
	got := specalign(t, nil, "compare", student, reference, "--top", "2", "--samples", "30", "--ids", ids, "--labels", labels, "--csv", table, "--json")
	if got.code != 0 {
		t.Fatal(got.stderr)
	}
	var r compare.Result
	d := json.NewDecoder(strings.NewReader(got.stdout))
	if err := d.Decode(&r); err != nil || d.More() {
		t.Fatalf("not one JSON document: %v", err)
	}
	if r.SchemaVersion != 1 || r.N != n || r.StudentDim != 12 || r.ReferenceDim != 20 || !r.Converged || r.Approximation != nil || len(r.Positive) != 2 || len(r.Negative) != 2 {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct {
		groups []compare.Group
		want   int
	}{{r.Positive, 0}, {r.Negative, 1}} {
		for _, s := range c.groups[0].Samples {
			if s.Index%4 != c.want || s.ID != fmt.Sprintf("sample-%d", s.Index) {
				t.Errorf("sample %+v in the group of %d", s, c.want)
			}
		}
		if p := c.groups[0].Composition; len(p) == 0 || p[0].Label != fmt.Sprintf("group %d", c.want) || p[0].Share < 0.8 {
			t.Errorf("composition %v", p)
		}
	}
	if want := math.Max(r.Positive[0].Eigenvalue, -r.Negative[0].Eigenvalue); r.SpecDiff != want {
		t.Errorf("SPEC-diff %v, largest eigenvalue %v", r.SpecDiff, want)
	}
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(lines) != 1+4*30 || lines[1][5] != r.Positive[0].Samples[0].ID {
		t.Errorf("the CSV has %d lines, the second %v: %v", len(lines), lines[1], err)
	}
	if got := specalign(t, nil, "compare", student, reference, "--top", "2", "--labels", labels); got.code != 0 || !strings.Contains(got.stdout, "% group 0") {
		t.Errorf("%d %s %s", got.code, got.stdout, got.stderr)
	}
	// A pattern of one file is the same as the file.
	pattern := filepath.Join(filepath.Dir(student), "stud*.npy")
	if got := specalign(t, nil, "compare", "--student", pattern, "--reference", reference, "--json", "--top", "2"); got.code != 0 {
		t.Error(got.stderr)
	}
}

func TestCompareRefuses(t *testing.T) {
	const n = 40
	student, reference := planted(t, n)
	other, _ := planted(t, n+1)
	short := listFile(t, n-1, func(i int) string { return "x" })
	long := listFile(t, n+1, func(i int) string { return "x" })
	for _, c := range []struct {
		want string
		args []string
	}{
		{"two files", []string{student}},
		{"belong together", []string{"--student", student}},
		{"one way", []string{student, reference, "--student", student}},
		{"the student has 41 rows and the reference 40", []string{other, reference}},
		{"39 lines, but there are 40 samples", []string{student, reference, "--ids", short}},
		{"more than 40 lines", []string{student, reference, "--labels", long}},
		{"no such file", []string{student, reference, "--labels", "/nowhere"}},
		{"no such file", []string{student, reference, "--csv", "/nowhere/x.csv"}},
		{"one of the inputs", []string{student, reference, "--csv", student}},
		{"top is 0", []string{student, reference, "--top", "0"}},
		{"kernel is \"x\"", []string{student, reference, "--kernel", "x"}},
		{"there is no flag --objective", []string{student, reference, "--objective", "ky_fan"}},
	} {
		specalign(t, nil, append([]string{"compare"}, c.args...)...).refused(t, 2, c.want)
	}
}

// TestCompareInterrupted: a signal ends the comparison with one line; no signal leaves a file behind.
func TestCompareInterrupted(t *testing.T) {
	student, reference := planted(t, 20000)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL} {
		folder := t.TempDir()
		cmd := command(t.Context(), nil, "compare", student, reference, "--kernel", "gaussian", "--approximation", "exact", "--csv", filepath.Join(folder, "groups.csv"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); !hasOpen(cmd.Process.Pid, folder) && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if sig != syscall.SIGKILL {
			outcome{cmd.ProcessState.ExitCode(), "", stderr.String()}.refused(t, 1, "interrupted; nothing was written")
		}
		if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
			t.Errorf("%v left behind: %v %v", sig, files, err)
		}
	}
}

// hasOpen tells whether a process has a file of a folder open, with a name or without.
func hasOpen(pid int, folder string) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, folder) {
			return true
		}
	}
	return false
}

// TestCompareChangedFile: what was computed from a file that changed meanwhile is not written.
func TestCompareChangedFile(t *testing.T) {
	student, reference := planted(t, 40)
	folder := t.TempDir()
	f := &compareFlags{
		rows: &rowFlags{student: []string{student}, reference: []string{reference}}, settings: &settingFlags{},
		options: compare.DefaultOptions(), csv: filepath.Join(folder, "groups.csv"),
	}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	for _, failed := range []error{nil, inputErrorf("row 3 is not finite")} { // of what the file had when it was half written
		err := f.show(cmd, func(ctx context.Context, in compare.Input, b align.Backend) (*compare.Result, error) {
			r, err := compare.Run(ctx, in, f.options, b)
			return r, errors.Join(failed, err, os.Chtimes(reference, time.Time{}, time.Now().Add(time.Minute)))
		})
		input := new(align.InputError)
		if !errors.As(err, &input) || err.Error() != reference+": the file was changed while it was read; compute from a finished copy" || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("%v, stdout %q, stderr %q", err, &stdout, &stderr)
		}
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
}

// TestCompareEqualRows: a collapsed embedding is told where its bandwidth cannot be found.
func TestCompareEqualRows(t *testing.T) {
	rows := func(name string, n int, from int) string {
		x := make([]float32, 0, 2*n)
		for i := range n {
			x = append(x, 1, float32(i/from))
		}
		path := filepath.Join(t.TempDir(), name)
		w, err := features.Create(path)
		if err == nil {
			err = w.Write(n, 2, x)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	point, other := rows("point.npy", 30, 30), rows("other.npy", 30, 5)
	got := specalign(t, nil, "compare", point, other, "--kernel", "gaussian", "--json")
	var r compare.Result
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || len(r.Warnings) != 1 ||
		r.Warnings[0] != "all rows of the student are equal, so that its kernel tells no samples apart, whatever the bandwidth; it is 1 here" {
		t.Errorf("%+v", got)
	}
	// Among 1,100 rows only the last one differs, and is not one of the 1,000 that are looked at.
	mostly, line := rows("mostly.npy", 1100, 1099), rows("line.npy", 1100, 5)
	specalign(t, nil, "compare", line, mostly, "--kernel", "gaussian").refused(t, 2, "the 1000 rows of the reference on which its bandwidth is found, evenly spaced among 1100, are all equal; give reference_sigma as a number")
	if got := specalign(t, nil, "compare", line, mostly, "--kernel", "gaussian", "--reference-sigma", "1", "--top", "2", "--permutations", "0", "--validate=false"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}
