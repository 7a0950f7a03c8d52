package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/specalign/specalign/align/features"
)

// sharded writes two embeddings of clustered samples into shards of these sizes, and returns their folder.
func sharded(t *testing.T, sizes ...int) string {
	t.Helper()
	folder := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 6))
	for side, d := range []int{12, 9} {
		centres := make([]float64, 6*d)
		for i := range centres {
			centres[i] = rng.NormFloat64()
		}
		at := 0
		for shard, n := range sizes {
			x := make([]float32, 0, n*d)
			for range n {
				for j := range d {
					x = append(x, float32(centres[at%(4+2*side)*d+j]+0.4*rng.NormFloat64()))
				}
				at++
			}
			saveRows(t, shardFile(folder, side, shard), n, d, x)
		}
	}
	return folder
}

func shardFile(folder string, side, shard int) string {
	return filepath.Join(folder, fmt.Sprintf("%s-%03d.npy", []string{"student", "reference"}[side], shard))
}

func saveRows(t *testing.T, path string, n, d int, x []float32) {
	t.Helper()
	w, err := features.Create(path)
	if err == nil {
		err = w.Write(n, d, x)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// steps runs steps of shards in a folder, where each argument that begins with @ is a file of it.
type steps struct {
	*testing.T
	folder string
}

func (s steps) run(line string) outcome {
	s.Helper()
	args := []string{"shards"}
	for word := range strings.FieldsSeq(line) {
		if name, of := strings.CutPrefix(word, "@"); of {
			word = filepath.Join(s.folder, name)
		}
		args = append(args, word)
	}
	return specalign(s.T, []string{"SPECALIGN_THREADS=1"}, args...)
}

func (s steps) must(lines ...string) (last outcome) {
	s.Helper()
	for _, line := range lines {
		if last = s.run(line); last.code != 0 {
			s.Fatalf("%s: %d, %s", line, last.code, last.stderr)
		}
	}
	return last
}

const planLine = "plan --student @student-*.npy --reference @reference-*.npy --top 3 --samples 5 --permutations 5 --out @plan"

// TestShards: the steps print what compare prints, but for times, warnings, why it is the CPU, and Theorem 1.
func TestShards(t *testing.T) {
	s := steps{t, sharded(t, 30, 21, 16, 35, 6, 45, 13, 15, 22, 7)}
	if o := s.must(planLine); o.stdout != "10 shards, 210 samples; student 12-d, reference 9-d\n" {
		t.Error(o.stdout)
	}
	page, csv := filepath.Join(s.folder, "page.html"), filepath.Join(s.folder, "groups.csv")
	got := s.must("partial @plan --shards 0-3,9 --out @a", "partial @plan --shards 4 --out @b", "partial @plan --shards 5-8 --threads 2 --out @c",
		"merge @c @a @b --out @moments", "spectrum @plan @moments --out @directions",
		"top @plan @directions --shards 1,3,5,7,9 --out @odd", "top @plan @directions --shards 8,6,4,2,0 --out @even",
		"merge @even @odd --out @scores", "result @plan @moments @directions @scores --json --csv "+csv+" --report "+page)
	want := specalign(t, []string{"SPECALIGN_THREADS=1"}, "compare", "--student", filepath.Join(s.folder, "student-*.npy"), "--reference", filepath.Join(s.folder, "reference-*.npy"),
		"--top", "3", "--samples", "5", "--permutations", "5", "--certify=false", "--json")
	if want.code != 0 {
		t.Fatal(want.stderr)
	}
	var documents [2]map[string]any
	for i, o := range []outcome{got, want} {
		if err := json.Unmarshal([]byte(o.stdout), &documents[i]); err != nil {
			t.Fatal(err)
		}
		for _, timed := range []string{"seconds", "stages", "warnings", "device_note"} {
			delete(documents[i], timed)
		}
	}
	a, errA := json.Marshal(documents[0])
	b, errB := json.Marshal(documents[1])
	if err := errors.Join(errA, errB); err != nil || string(a) != string(b) {
		t.Errorf("%v\n%s\n%s", err, a, b)
	}
	for _, path := range []string{page, csv} {
		if st, err := os.Stat(path); err != nil || st.Size() < 500 {
			t.Errorf("%s: %v", path, err)
		}
	}
	if o := s.must("result @plan @moments @directions @scores"); !strings.Contains(o.stdout, "the student groups these") {
		t.Error(o.stdout)
	}
	var plan struct {
		N      int                          `json:"n"`
		Shards []struct{ Reference string } `json:"shards"`
	}
	if err := json.Unmarshal([]byte(s.must(planLine+" --json").stdout), &plan); err != nil || plan.N != 210 || plan.Shards[9].Reference != shardFile(s.folder, 1, 9) {
		t.Errorf("%v: %+v", err, plan)
	}
}

// TestShardsHostile: each is one line that names the shard or the file, exit code 2, and no file is written.
func TestShardsHostile(t *testing.T) {
	s := steps{t, sharded(t, 30, 31, 32)}
	s.must(planLine, "partial @plan --shards 0 --out @a", "partial @plan --shards 1,2 --out @b", "merge @a @b --out @moments",
		"spectrum @plan @moments --out @directions", "top @plan @directions --shards 0,1 --out @most")
	write(t, filepath.Join(s.folder, "text"), "hello")
	data, err := os.ReadFile(filepath.Join(s.folder, "b"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.folder, "short"), string(data[:len(data)-100]))
	data[len(data)/2] ^= 4
	write(t, filepath.Join(s.folder, "damaged"), string(data))
	refused := func(line, want string) {
		t.Helper()
		if !strings.Contains(line, "--out") && !strings.HasPrefix(line, "result") {
			line += " --out @x"
		}
		s.run(line).refused(t, 2, want)
		if _, err := os.Stat(filepath.Join(s.folder, "x")); err == nil {
			t.Errorf("%s wrote a file", line)
		}
	}
	refused("partial @plan --shards 3", `--shards has "3", but the plan has the shards 0 to 2`)
	refused("partial @plan --shards 2-1", `--shards has "2-1"; give numbers and ranges`)
	refused("partial @plan --shards 1,0-1", "shard 1 ("+shardFile(s.folder, 0, 1)+") is given twice")
	refused("partial @plan --threads -1", "--threads is -1")
	refused("partial @plan --out @student-001.npy", "is one of the inputs")
	refused("partial @text", "is no file of specalign shards")
	refused("partial @moments", "holds moments, not a plan")
	refused("merge @a @b @a", "shard 0 ("+shardFile(s.folder, 0, 0)+") is in both")
	refused("merge @a @damaged", "damaged is damaged: its checksum is wrong")
	refused("merge @a @short", "short is not complete")
	refused("merge @a @none", "no such file")
	refused("spectrum @plan @b", "lacks shard 0 ("+shardFile(s.folder, 0, 0)+")")
	refused("result @plan @moments @directions @most --csv @x", "most lacks shard 2 ("+shardFile(s.folder, 0, 2)+")")
	refused("plan --student @student-00?.npy --student @student-001.npy --reference @reference-*.npy --reference @reference-001.npy", "is given twice")
	refused("plan --student @student-*.npy --reference @reference-*.npy --kernel gaussian --approximation exact", "needs all rows in one process")
	s.run("merge @a").refused(t, 2, "shards merge needs --out FILE")
	s.run("spectrum @plan --out @x").refused(t, 2, "shards spectrum takes a PLAN and MOMENTS, not 1 file")
	s.run("parts").refused(t, 2, `shards has no step "parts"`)

	// The same shard: other values, of another width, with fewer rows, truncated, gone.
	path := shardFile(s.folder, 1, 1)
	saveRows(t, path, 31, 9, make([]float32, 31*9))
	refused("top @plan @directions --shards 1", "changed between the passes: the reference's rows are others")
	refused("top @plan @directions", "shard 1 ("+shardFile(s.folder, 0, 1)+") changed between the passes")
	saveRows(t, path, 31, 10, make([]float32, 31*10))
	refused("partial @plan", "shard 1 ("+path+") has rows of 10 numbers, but the plan has 9")
	saveRows(t, path, 30, 9, make([]float32, 30*9))
	refused("partial @plan", "shard 1 ("+path+") has 30 rows, but 31 when the plan was made")
	if err := os.Truncate(path, 500); err != nil {
		t.Fatal(err)
	}
	refused("partial @plan --shards 1-2", path+": its shape (30, 9) of float32 takes 1080 bytes")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	refused("partial @plan", path+": no such file")
}
