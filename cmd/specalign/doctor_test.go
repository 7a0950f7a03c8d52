package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/plugin"
)

// find returns the check of that name.
func (e *examination) find(t *testing.T, name string) check {
	t.Helper()
	i := slices.IndexFunc(e.Checks, func(c check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no check %s in %+v", name, e.Checks)
	}
	return e.Checks[i]
}

// doctor runs `specalign doctor --json`.
func doctor(t *testing.T, env []string, args ...string) (examination, outcome) {
	t.Helper()
	o := specalign(t, env, append([]string{"doctor", "--json"}, args...)...)
	var e examination
	if err := json.Unmarshal([]byte(o.stdout), &e); err != nil {
		t.Fatalf("%v: %+v", err, o)
	}
	return e, o
}

// fakePython writes an executable script that stands for Python.
func fakePython(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python3")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDoctorPython(t *testing.T) {
	answer := func(fields string) string {
		return `echo a package printed this; echo '{"python":"3.11.7","supported":true,"executable":"/p",` + fields + `}'`
	}
	all := `"packages":{"numpy":"2.4","grpcio":"1.85","specalign":"` + version + `","torch":"2.15","open-clip-torch":"3.3.0","webdataset":"0.2.86"},"program":"/b"`
	loop := `,"loop":"known","loop_detail":"train_one_epoch(model)"`
	for name, c := range map[string]struct {
		script, check string
		status        status
		detail        string
	}{
		"well":       {answer(all + loop), "specalign", statusOK, version + ", runs /b"},
		"library":    {answer(all + `,"library":true` + loop), "specalign", statusOK, "/b, or in process libspecalign.so beside it"},
		"known loop": {answer(all + loop), "training loop", statusOK, "train_one_epoch(model)"},
		"other loop": {answer(all + `,"loop":"unknown","loop_detail":"train_one_epoch(state)"`), "training loop", statusWarn, "train_one_epoch(state)"},
		"no loop":    {answer(all + `,"loop_detail":"ImportError: x"`), "training loop", statusWarn, "cannot be looked at: ImportError: x"},
		"old client": {answer(strings.Replace(all, version, "0.0.9", 1) + loop), "specalign", statusWarn, "0.0.9, but this program is"},
		"no program": {answer(strings.Replace(all, `,"program":"/b"`, "", 1) + loop), "specalign", statusWarn, "finds no program"},
		"no torch":   {answer(strings.Replace(all, `"torch":"2.15",`, "", 1) + loop), "torch", statusWarn, "not installed"},
		"bad torch":  {answer(all + `,"torch_error":"OSError: libc"` + loop), "torch", statusWarn, "does not work: OSError: libc"},
		"rows stay":  {answer(all + `,"memory_note":""` + loop), "GPU memory", statusOK, "stay there"},
		"rows go":    {answer(all + `,"memory_note":"no IPC"` + loop), "GPU memory", statusWarn, "through host memory: no IPC"},
		"web":        {answer(strings.Replace(all, "0.2.86", "1.0.2", 1) + loop), "webdataset", statusWarn, "1.0.2"},
		"old python": {`echo '{"python":"3.8.1","supported":false,"executable":"/p","packages":{}}'`, "python", statusWarn, "3.8.1 at /p"},
		"garbage":    {"echo hello", "python", statusFail, "gave no answer"},
		"failing":    {"echo broken >&2; exit 3", "python", statusFail, "does not run: exit status 3 (broken)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, o := doctor(t, nil, "--python", fakePython(t, c.script))
			got := e.find(t, c.check)
			if got.Status != c.status || !strings.Contains(got.Detail, c.detail) || (got.Status != statusOK) != (got.Advice != "") {
				t.Errorf("%+v", got)
			}
			if failed := c.status == statusFail; e.OK == failed || (o.code == 1) != failed || (o.stderr != "") != failed {
				t.Errorf("ok %v, exit %d, stderr %q", e.OK, o.code, o.stderr)
			}
		})
	}
}

func TestDoctor(t *testing.T) {
	e, o := doctor(t, nil)
	if o.code != 0 || o.stderr != "" || !e.OK || e.SchemaVersion != 1 || e.Version != version {
		t.Errorf("%+v", o)
	}
	for _, name := range []string{"CPU", "level portable", "threads", "GPU", "launched", "shared memory", "pidfd", "file size", "locked memory", "/dev/shm", "python"} {
		if e.find(t, name).Detail == "" {
			t.Errorf("%s says nothing", name)
		}
	}
	o = specalign(t, nil, "doctor")
	if o.code != 0 || !strings.HasPrefix(o.stdout, "specalign "+version) || !strings.Contains(o.stdout, "\nEngine\n  ok   CPU ") || strings.Contains(o.stdout, "\x1b") {
		t.Errorf("%+v", o)
	}
	e, o = doctor(t, []string{"SPECALIGN_ISA=sse9"})
	if c := e.find(t, "SPECALIGN_ISA"); o.code != 1 || c.Status != statusFail || !strings.Contains(o.stderr, "failed") {
		t.Errorf("%+v %+v", c, o)
	}
}

// TestDaemon: a daemon is seen by the doctor, and ends without a trace.
func TestDaemon(t *testing.T) {
	attach := filepath.Join(t.TempDir(), "sidecar.json")
	cmd := command(t.Context(), []string{"SPECALIGN_LOG=warn"}, "serve", "--daemon", "--attach", attach)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(attach); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not answer")
		}
	}
	specalign(t, nil, "doctor", "--attach", attach, "--python", "python3").refused(t, 2, "--python is given, but --attach asks a daemon")
	e, o := doctor(t, nil, "--attach", attach)
	if c := e.find(t, "daemon"); c.Status != statusOK || !strings.Contains(c.Detail, "specalign "+version) || o.code != 0 {
		t.Errorf("%+v %+v", c, o)
	}
	h := e.Daemon
	if h.Pid != int64(cmd.Process.Pid) || h.Version != version || !h.Ready || h.Steps != 0 || h.UptimeSeconds <= 0 || h.ResidentBytes < 1<<20 || h.AnswerSeconds > 5 {
		t.Errorf("%+v", h)
	}
	c, err := plugin.Dial(t.Context(), attach)
	if err != nil {
		t.Fatal(err)
	}
	session, err := c.Session(t.Context(), align.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Step(t.Context(), trial(1), trial(2), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Step(t.Context(), align.Features{Rows: 1, Cols: 1, Type: align.Float32, Data: []byte{0, 0, 0xc0, 0x7f}}, align.Features{Rows: 1, Cols: 1, Type: align.Float32, Data: make([]byte, 4)}, nil); err == nil {
		t.Error("NaN is taken")
	}
	if e, o = doctor(t, nil, "--attach", attach); e.find(t, "steps").Status != statusWarn || o.code != 0 || e.Daemon.Steps != 1 || e.Daemon.FailedSteps != 1 || e.Daemon.Sessions != 1 || e.Daemon.LatencyMedian <= 0 {
		t.Errorf("%+v", o)
	}
	if o := specalign(t, nil, "doctor", "--attach", attach); o.code != 0 || !strings.Contains(o.stdout, "1 done, 0 under way, 1 refused or failed") || !strings.Contains(o.stdout, "\nThe daemon works; 1 warning.\n") || strings.Contains(o.stdout, "Engine") {
		t.Errorf("%+v", o)
	}
	if err := errors.Join(session.Close(t.Context()), c.Close()); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(stderr)
	if err := cmd.Wait(); err != nil || len(said) > 0 {
		t.Errorf("%v: %s", err, said)
	}
	if _, err := os.Stat(attach); err == nil {
		t.Error("the attach file is still there")
	}
	e, o = doctor(t, nil, "--attach", attach)
	if c := e.find(t, "daemon"); c.Status != statusFail || o.code != 1 || !strings.Contains(c.Advice, "serve --daemon") {
		t.Errorf("%+v %+v", c, o)
	}
}
