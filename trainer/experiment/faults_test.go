package experiment

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"golang.org/x/sys/unix"
)

// TestRefusedFolders: what is in a folder and does not belong to this run is left as it is.
func TestRefusedFolders(t *testing.T) {
	path := world(t, "")
	e := planOf(t, path, "steps=10")
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := e.Run(t.Context(), options(dir)); err != nil {
		t.Fatal(err)
	}
	checkpoint := filepath.Join(dir, "seed-0", checkpointName)
	whole, err := os.ReadFile(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(e *Plan, want string) {
		t.Helper()
		o := options(dir)
		o.Resume = true
		_, err := e.Run(t.Context(), o)
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused(planOf(t, path, "steps=11"), "of other settings")
	result := filepath.Join(dir, "seed-0", resultName)
	for _, text := range []string{"", "null", "{}", `{"seed": 1, "steps": 10}`, `{"steps": 10}`, `{"steps": 10, "before": {}, "after": {}}`} {
		file(t, result, text)
		refused(e, "result.json is damaged")
	}
	if err := os.Remove(result); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(result, 0o600); err != nil { // which would be waited for
		t.Fatal(err)
	}
	refused(e, "not a regular file")
	if err := os.Remove(result); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 97 {
		damaged := slices.Clone(whole)
		damaged[i] ^= 4
		file(t, checkpoint, string(damaged))
		refused(e, "is damaged")
	}
	for _, n := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
		file(t, checkpoint, string(whole[:n]))
		refused(e, "is damaged")
	}
	file(t, checkpoint, string(whole))
	file(t, filepath.Join(dir, "seed-0", tableName), "")
	refused(e, "shorter than")
	inputs := filepath.Join(filepath.Dir(path), "train-inputs.npy")
	text, err := os.ReadFile(inputs)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-1] ^= 1
	file(t, inputs, string(text))
	refused(e, "other rows")
	record := filepath.Join(dir, settingsName)
	if err := os.Rename(record, record+".old"); err != nil {
		t.Fatal(err)
	}
	refused(e, "no experiment.json of a run")
	if err := os.Rename(record+".old", record); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	refused(e, "in use")
}

// TestFullDisk: what cannot be written is told, and the last checkpoint stays whole.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no small file system can be mounted: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	e := planOf(t, world(t, ""), "student.hidden=[200]", "checkpoint=1") // parameters of 10 kB, with moments 30: two fit
	o := options(filepath.Join(dir, "out"))
	blocked := false
	o.Progress = func(stage string, done, _ int) {
		if done == 3 && !blocked {
			blocked = true
			free := make([]byte, 1<<20)
			_ = os.WriteFile(filepath.Join(dir, "ballast"), free, 0o666)
		}
	}
	_, err := e.Run(t.Context(), o)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	o.Resume = true
	if _, err := e.Run(t.Context(), o); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestDiverged: a run whose numbers are not finite any more says where, and keeps the checkpoint before.
func TestDiverged(t *testing.T) {
	path := world(t, "")
	inputs := filepath.Join(filepath.Dir(path), "train-inputs.npy")
	text, err := os.ReadFile(inputs)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(text) - 1; i >= len(text)-4*120*6; i -= 4 {
		text[i] = text[i]&0x80 | 0x7e // 1e37 or more
	}
	file(t, inputs, string(text))
	e := planOf(t, path, "penalty={rival: regression}", "checkpoint=1")
	e.Cells[0].Evaluation = nil
	o := options(filepath.Join(t.TempDir(), "out"))
	for range 2 {
		_, err := e.Run(t.Context(), o)
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), "seed 0, step 1: the loss is ") {
			t.Errorf("%v", err)
		}
		o.Resume = true
	}
	if err := (&run{name: "seed 0", net: broken()}).save(7); err == nil || !strings.Contains(err.Error(), "seed 0, step 7: a parameter of the student is not finite") {
		t.Errorf("%v", err)
	}
}

// broken is a network with a parameter that is not finite.
func broken() *network {
	n := newNetwork(Student{Kind: "linear", Dim: 2}, 3, ends{}, 1)
	n.parameters()[0].Data().([]float32)[1] = float32(math.NaN())
	return n
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(checkpointMagic + "\x02\x00\x00\x00{}"))
	net := newNetwork(Student{Kind: "linear", Dim: 2}, 3, ends{}, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		file(t, filepath.Join(dir, checkpointName), string(data))
		a := newAdam(Optimizer{}, net.parameters())
		_, _, ok, err := readCheckpoint(dir, header{}, net.parameters(), a)
		var input *align.InputError
		if ok || !errors.As(err, &input) {
			t.Fatal(ok, err)
		}
	})
}
