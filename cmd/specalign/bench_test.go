package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// contestOf runs the verb with a small step and without waiting.
func contestOf(t *testing.T, env []string, args ...string) outcome {
	t.Helper()
	return specalign(t, env, append([]string{"bench", "--rows", "32", "--dims", "8,6", "--seconds", "0.01", "--threads", "1"}, args...)...)
}

func TestBenchAlone(t *testing.T) {
	nowhere := []string{"VIRTUAL_ENV=" + t.TempDir()} // without a Python
	o := contestOf(t, nowhere, "--json")
	var r benchReport
	if o.code != 0 || json.Unmarshal([]byte(o.stdout), &r) != nil {
		t.Fatalf("%+v", o)
	}
	if len(r.Step.Contestants) != 1 || r.Step.Contestants[0].Name != engineName || r.Step.Torch != nil || r.Step.Calls < 3 {
		t.Errorf("%+v", r.Step)
	}
	if len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "without PyTorch: ") {
		t.Errorf("notes %q", r.Notes)
	}
	if len(r.Kernels) != 8 || !(r.Peaks.FLOPS > 0 && r.Peaks.Memory > 0) {
		t.Errorf("%+v %+v", r.Peaks, r.Kernels)
	}
	for _, k := range r.Kernels {
		if !(k.Seconds > 0) {
			t.Errorf("%+v", k)
		}
	}
	if o := contestOf(t, nowhere); o.code != 0 || !strings.Contains(o.stdout, "of the peak") || !strings.Contains(o.stdout, "note: without PyTorch") {
		t.Errorf("%+v", o)
	}
}

func TestBenchRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--rows", "1"}, "--rows is 1"},
		{[]string{"--k", "20"}, "--k is 20"},
		{[]string{"--threads", "-1"}, "--threads is -1"},
		{[]string{"--dims", "4"}, "--dims are [8 6 4]"},
		{[]string{"--seconds", "NaN"}, "--seconds is NaN"},
		{[]string{"--python", "/nowhere/python"}, "--python: /nowhere/python does not run: no such file"},
		{[]string{"--python", fakePython(t, "echo hello; cat >/dev/null")}, "gave no answer"},
		{[]string{"--python", fakePython(t, `echo "ModuleNotFoundError: No module named 'torch'" >&2; exit 1`)}, "PyTorch is not installed"},
		{[]string{"extra"}, "bench takes no argument"},
	} {
		contestOf(t, nil, c.args...).refused(t, 2, c.want)
	}
}
