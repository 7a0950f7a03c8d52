package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/specalign/specalign/align/features"
)

// writeExperiment writes an experiment and its rows into a folder of its own.
func writeExperiment(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for name, cols := range map[string]int{"inputs": 6, "reference": 4} {
		data := make([]float32, 200*cols)
		for i := range data {
			data[i] = float32(rng.NormFloat64())
		}
		var b bytes.Buffer
		if err := features.WriteNPY(&b, 200, cols, data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".npy"), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "small.yaml")
	text := "# Is it small?\ndata: {inputs: inputs.npy, reference: reference.npy}\nstudent: {kind: linear, dim: 5}\npenalty: {k: 3}\nsteps: 20\nbatch: 50\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTrain(t *testing.T) {
	path := writeExperiment(t)
	out := filepath.Join(t.TempDir(), "out")
	if o := specalign(t, nil, "train", path, "--dry-run", "--out", out); o.code != 0 || !strings.Contains(o.stdout, "1 run, 20 steps together, into "+out) {
		t.Fatalf("%+v", o)
	}
	if o := specalign(t, nil, "train", path, "--dry-run", "--json"); o.code != 0 || !json.Valid([]byte(o.stdout)) || !strings.Contains(o.stdout, `"steps": 20`) {
		t.Errorf("%+v", o)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("--dry-run made the folder")
	}
	o := specalign(t, nil, "train", path, "--out", out, "--json")
	var doc struct {
		Results []struct{ Steps int }
	}
	if o.code != 0 || json.Unmarshal([]byte(o.stdout), &doc) != nil || len(doc.Results) != 1 || doc.Results[0].Steps != 20 {
		t.Fatalf("%+v", o)
	}
	if _, err := os.Stat(filepath.Join(out, "results.csv")); err != nil {
		t.Error(err)
	}
	specalign(t, nil, "train", path, "--out", out).refused(t, 2, "--resume")
	if o := specalign(t, nil, "train", path, "--out", out, "--resume"); o.code != 0 || !strings.Contains(o.stdout, "one seed of 20 steps") {
		t.Errorf("%+v", o)
	}
	specalign(t, nil, "train", path, "--out", out, "--resume", "--set", "penalty.k=2").refused(t, 2, "other settings")
	specalign(t, nil, "train", path, "--set", "student.kind=cnn").refused(t, 2, `student.kind is "cnn"`)
	specalign(t, nil, "train", filepath.Join(out, "nowhere.yaml")).refused(t, 2, "no such file")
	specalign(t, nil, "train").refused(t, 2, "takes one file")
}

// TestTrainInterrupted: Ctrl-C ends between two steps, saves, and says how to go on; SIGKILL leaves what can be
// resumed.
func TestTrainInterrupted(t *testing.T) {
	path := writeExperiment(t)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		out := filepath.Join(t.TempDir(), "out")
		args := []string{"train", path, "--out", out, "--set", "steps=3000", "--set", "checkpoint=20"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := command(ctx, nil, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		checkpoint := filepath.Join(out, "seed-0", "checkpoint")
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(checkpoint); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no checkpoint")
			}
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if s != syscall.SIGKILL {
			if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(stderr.String(), "which is saved; the same command with --resume") {
				t.Errorf("%v: exit %d, %s", s, code, &stderr)
			}
		}
		if o := specalign(t, nil, append(args, "--resume")...); o.code != 0 || !strings.Contains(o.stdout, "one seed of 3000 steps") {
			t.Errorf("%v: %+v", s, o)
		}
	}
}

// TestTrainKilled: a run that is killed again and again, at whatever moment, goes on each time and ends as one that is not.
func TestTrainKilled(t *testing.T) {
	path := writeExperiment(t)
	dir := t.TempDir()
	run := func(out string) []string {
		return []string{"train", path, "--out", filepath.Join(dir, out), "--resume", "--set", "steps=300", "--set", "checkpoint=7"}
	}
	steps := func(out string) string {
		text, err := os.ReadFile(filepath.Join(dir, out, "seed-0", "steps.csv"))
		if err != nil {
			t.Fatal(err)
		}
		var lines strings.Builder
		for l := range strings.Lines(string(text)) {
			lines.WriteString(l[:strings.LastIndex(l, ",")] + "\n") // without the seconds
		}
		return lines.String()
	}
	if o := specalign(t, nil, run("whole")...); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	killed := 0
	for range 12 {
		cmd := command(t.Context(), nil, run("killed")...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		_ = cmd.Process.Kill()
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() == -1 {
			killed++
		} else if !cmd.ProcessState.Success() {
			t.Fatalf("exit %d: %s", cmd.ProcessState.ExitCode(), &stderr)
		}
	}
	if o := specalign(t, nil, run("killed")...); o.code != 0 || killed == 0 {
		t.Fatalf("%d times killed, then %+v", killed, o)
	}
	if a, b := steps("whole"), steps("killed"); a != b {
		t.Errorf("killed %d times, the steps differ:\n%s\n%s", killed, a, b)
	}
}
