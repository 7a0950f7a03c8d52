package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fileArguments are commands that print and write files, into folder.
func fileArguments(t *testing.T, folder string) [][]string {
	t.Helper()
	student, reference := planted(t, 40)
	return [][]string{
		{"penalty", student, reference, "--grad-out", filepath.Join(folder, "g.npy")},
		{"compare", student, reference, "--json", "--samples", "40", "--csv", filepath.Join(folder, "t.csv"), "--report", filepath.Join(folder, "p.html")},
	}
}

// TestAllOrNothing: what a command prints and the files that it writes are there together or not at all, and what stood
// in the files' places stays there until then.
func TestAllOrNothing(t *testing.T) {
	folder := t.TempDir()
	old := filepath.Join(folder, "t.csv")
	write(t, old, "old")
	for _, args := range fileArguments(t, folder) {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip(err)
		}
		cmd := command(t.Context(), nil, args...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run()
		outcome{cmd.ProcessState.ExitCode(), "", stderr.String()}.refused(t, 1, "no space left on device")
		if err := full.Close(); err != nil {
			t.Error(err)
		}
		onlyFile(t, old, "old")
	}
}

// onlyFile fails where there is anything else in a file's folder, or something else in the file.
func onlyFile(t *testing.T, path, content string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("left behind: %v %v", files, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != content {
		t.Errorf("%s: %q %v", path, text, err)
	}
}

// TestNobodyReads: a reader that goes away ends the command as it ends others: by SIGPIPE, without a word and without
// files.
func TestNobodyReads(t *testing.T) {
	folder := t.TempDir()
	old := filepath.Join(folder, "t.csv")
	write(t, old, "old")
	student, reference := planted(t, 40)
	all := append(fileArguments(t, folder), []string{"metrics", student, reference}, []string{"-h"}, []string{"doctor", "--attach", "nowhere"})
	for _, args := range all {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(t.Context(), nil, args...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = w, &stderr
		if err := errors.Join(r.Close(), cmd.Start(), w.Close()); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGPIPE || stderr.String() != "" {
			t.Errorf("%v: %v, stderr %q", args, cmd.ProcessState, stderr.String())
		}
		onlyFile(t, old, "old")
	}
}

// TestTwoSignals: a second signal ends the command at once, and leaves nothing behind.
func TestTwoSignals(t *testing.T) {
	folder := t.TempDir()
	old := filepath.Join(folder, "t.csv")
	write(t, old, "old")
	student, reference := planted(t, 12000)
	for _, pause := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
		cmd := command(t.Context(), nil, "compare", student, reference, "--kernel", "gaussian", "--approximation", "exact", "--csv", old)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); !hasOpen(cmd.Process.Pid, folder) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
		_ = cmd.Process.Signal(syscall.SIGHUP) // two of one kind may become one
		_ = cmd.Wait()
		s := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !(s.Signaled() && (s.Signal() == syscall.SIGHUP || s.Signal() == syscall.SIGTERM)) && s.ExitStatus() != 1 {
			t.Errorf("%v", cmd.ProcessState)
		}
		onlyFile(t, old, "old")
	}
}

// TestNohup: a command that was told to ignore the end of its terminal does so.
func TestNohup(t *testing.T) {
	student, reference := planted(t, 1500)
	shell := exec.CommandContext(t.Context(), "sh", "-c", `trap "" HUP; exec "$0" "$@"`, os.Args[0], "compare", student, reference,
		"--kernel", "gaussian", "--approximation", "exact", "--permutations", "0", "--koda", "0", "--certify=false", "--validate=false", "--csv", filepath.Join(t.TempDir(), "t.csv"))
	shell.Env = append(os.Environ(), mainKey+"=1")
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(shell.Args[len(shell.Args)-1])
	for deadline := time.Now().Add(time.Minute); !hasOpen(shell.Process.Pid, folder) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if err := errors.Join(shell.Process.Signal(syscall.SIGHUP), shell.Wait()); err != nil {
		t.Error(err)
	}
}

// TestClosedOutput: what cannot be printed is an error, also where the runtime of Go has put /dev/null in place of a
// closed stream; a /dev/null that was asked for is not.
func TestClosedOutput(t *testing.T) {
	student, reference := planted(t, 20)
	for redirection, code := range map[string]int{">&-": 1, "<>/dev/null >&0": 0} {
		csv := filepath.Join(t.TempDir(), "t.csv")
		shell := exec.CommandContext(t.Context(), "sh", "-c", `exec "$0" "$@" `+redirection, os.Args[0], "compare", student, reference, "--csv", csv)
		shell.Env = append(os.Environ(), mainKey+"=1")
		var stderr strings.Builder
		shell.Stderr = &stderr
		_ = shell.Run()
		if got := shell.ProcessState.ExitCode(); got != code || strings.Contains(stderr.String(), "standard output is closed") != (code != 0) {
			t.Errorf("%s: status %d, %q", redirection, got, stderr.String())
		}
		if _, err := os.Stat(csv); code != 0 && !os.IsNotExist(err) {
			t.Errorf("%s: the CSV is there (%v)", redirection, err)
		}
	}
}
