package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/align/metrics"
)

// writeRows writes n rows of width d that share what the first columns say.
func writeRows(t *testing.T, path string, seed uint64, n, d int) {
	t.Helper()
	shared, own := rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(seed, 2))
	data := make([]float32, 0, n*d)
	for range n {
		common := shared.NormFloat64()
		for range d {
			data = append(data, float32(common+own.NormFloat64()))
		}
	}
	w, err := features.Create(path)
	if err == nil {
		err = w.Write(n, d, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.npy"), filepath.Join(dir, "b.npy")
	writeRows(t, a, 5, 60, 7)
	writeRows(t, b, 6, 60, 4)
	o := specalign(t, nil, "metrics", a, b, "--json", "--nngs-k", "3,20", "--nngs-metric", "euclidean,cosine")
	if o.code != 0 || o.stderr != "" {
		t.Fatalf("%+v", o)
	}
	var r metrics.Result
	d := json.NewDecoder(strings.NewReader(o.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if r.SchemaVersion != 1 || r.N != 60 || r.StudentDim != 7 || r.ReferenceDim != 4 || r.Device != "cpu" || r.Warnings == nil || r.Seconds <= 0 || r.Route == "" {
		t.Errorf("%+v", r)
	}
	if *r.SpecDiff != math.Max(*r.LambdaMax, -*r.LambdaMin) || *r.SpecDiff <= 0 || *r.CKA.Linear <= 0.1 || *r.CKA.RBF <= 0.1 || len(r.NNGS) != 4 {
		t.Errorf("%+v", r)
	}
	for i, want := range []string{"euclidean 3", "euclidean 20", "cosine 3", "cosine 20"} {
		if s := r.NNGS[i]; fmt.Sprint(s.Metric, " ", s.K) != want || s.Value <= s.Chance || math.Abs(s.Normalised-(s.Value-s.Chance)/(1-s.Chance)) > 1e-12 {
			t.Errorf("%s: %+v", want, s)
		}
	}
	// the same from shards, and with parts left out
	first, second := filepath.Join(dir, "s-0.npy"), filepath.Join(dir, "s-1.npy")
	writeRows(t, first, 5, 60, 7)
	writeRows(t, second, 9, 30, 7)
	both := filepath.Join(dir, "t.npy")
	writeRows(t, both, 3, 90, 2)
	o = specalign(t, nil, "metrics", "--student", filepath.Join(dir, "s-*.npy"), "--reference", both, "--without", "cka_rbf,spec_diff", "--json")
	r = metrics.Result{}
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || o.code != 0 || r.N != 90 || r.SpecDiff != nil || r.CKA.RBF != nil || r.CKA.Linear == nil || r.NNGS[0].K != 10 {
		t.Errorf("%+v, %v", o, err)
	}
	o = specalign(t, nil, "metrics", a, b) // for a person
	if o.code != 0 || o.stderr != "" || !strings.HasPrefix(o.stdout, "SPEC-diff    ") || !strings.Contains(o.stdout, "\nNNGS         ") || strings.Count(o.stdout, "\nCKA          ") != 2 {
		t.Errorf("%+v", o)
	}
}

func TestMetricsRefuses(t *testing.T) {
	dir := t.TempDir()
	a, few := filepath.Join(dir, "a.npy"), filepath.Join(dir, "few.npy")
	writeRows(t, a, 5, 60, 7)
	writeRows(t, few, 6, 5, 4)
	specalign(t, nil, "metrics", a, few).refused(t, 2, "60 rows and the reference 5")
	specalign(t, nil, "metrics", few, few, "--nngs-k", "5").refused(t, 2, "nngs_k is 5, but of 5 samples each has 4 others")
	specalign(t, nil, "metrics", a, a, "--nngs-metric", "l1").refused(t, 2, "nngs_metric is \"l1\"")
	specalign(t, nil, "metrics", a, a, "--without", "cka,spec_diff,nngs").refused(t, 2, "nothing is left")
	specalign(t, nil, "metrics", a).refused(t, 2, "metrics takes two files, STUDENT and REFERENCE, not 1")
	specalign(t, nil, "metrics", "--student", a).refused(t, 2, "give both")
	specalign(t, nil, "metrics", a, a, "--student", a).refused(t, 2, "all of them one way")
	specalign(t, nil, "metrics", "--student", dir+"/x*.npy", "--reference", a).refused(t, 2, "no file matches")
	if o := specalign(t, nil, "metrics", few, few); o.code != 0 || !strings.Contains(o.stdout, "4 neighbours") {
		t.Errorf("%+v", o)
	}
}

// TestMetricsHeldOut: rows whose class is plain are told apart, and files that do not fit are told.
func TestMetricsHeldOut(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, n int) (rows, classes string) {
		rows = filepath.Join(dir, name+".npy")
		data := make([]float32, 0, 3*n)
		for i := range n {
			x := []float32{0.1, 0.1, float32(i) / float32(10*n)}
			x[i%2] = 1
			data = append(data, x...)
		}
		w, err := features.Create(rows)
		if err == nil {
			err = w.Write(n, 3, data)
		}
		if err != nil {
			t.Fatal(err)
		}
		return rows, listFile(t, n, func(i int) string { return []string{"boot", "bag"}[i%2] })
	}
	train, trainLabels := write("train", 40)
	test, labels := write("test", 30)
	all := func(more ...string) []string {
		return append([]string{"metrics", test, test, "--labels", labels, "--train", train, "--train-labels", trainLabels}, more...)
	}
	o := specalign(t, nil, all("--json", "--knn-k", "3")...)
	var r metricsResult
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || o.code != 0 || r.HeldOut == nil || *r.HeldOut != (heldOut{Probe: 1, KNN: 1, K: 3, Train: 40}) || r.N != 30 {
		t.Errorf("%+v, %v", o, err)
	}
	if o := specalign(t, nil, all()...); o.code != 0 || !strings.Contains(o.stdout, "\nprobe        1.0000 ") || !strings.Contains(o.stdout, "\nk-NN         1.0000 ") {
		t.Errorf("%+v", o)
	}
	other := listFile(t, 30, func(int) string { return "hat" })
	narrow := filepath.Join(dir, "narrow.npy")
	writeRows(t, narrow, 1, 40, 2)
	specalign(t, nil, "metrics", test, test, "--train", train).refused(t, 2, "belong together")
	specalign(t, nil, "metrics", test, test, "--knn-k", "3").refused(t, 2, "--knn-k is for --train")
	specalign(t, nil, all("--knn-k", "0")...).refused(t, 2, "--knn-k is 0")
	specalign(t, nil, all("--knn-k", "41")...).refused(t, 2, "--train has 40 rows")
	specalign(t, nil, all("--labels", other)...).refused(t, 2, `--labels: "hat" of line 1 is no class of --train-labels`)
	specalign(t, nil, all("--labels", trainLabels)...).refused(t, 2, "more than 30 lines")
	specalign(t, nil, all("--train", narrow)...).refused(t, 2, "has 2 columns, but A has 3")
	specalign(t, nil, all("--train", dir+"/nowhere.npy")...).refused(t, 2, "--train: ")
}
