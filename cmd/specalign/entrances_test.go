package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOutputsOverInputs: no output is written over an input or another output, by whatever link it is named.
func TestOutputsOverInputs(t *testing.T) {
	const n = 40
	student, reference := planted(t, n)
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	ids := listFile(t, n, func(int) string { return "x" })
	config := in("settings.npy")
	write(t, config, "eta: 1\n")
	for link, of := range map[string]string{"ids": ids, "student.npy": student} {
		if err := errors.Join(os.Symlink(of, in("soft-"+link)), os.Link(of, in("hard-"+link))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(folder, in("folder")); err != nil {
		t.Fatal(err)
	}
	compare := []string{"compare", student, reference, "--ids", ids}
	penalty := []string{"penalty", student, reference, "--config", config, "--grad-out"}
	const input, both = "is one of the inputs; give another name", "give two names"
	for _, c := range []struct {
		want string
		args []string
	}{
		{input, append(compare, "--csv", ids)},
		{input, append(compare, "--csv", in("soft-ids"))},
		{input, append(compare, "--csv", in("hard-ids"))},
		{input, append(compare, "--report", in("soft-ids"))},
		{input, append(compare, "--config", config, "--csv", config)},
		{both, append(compare, "--csv", in("x.html"), "--report", in("x.html"))},
		{both, append(compare, "--csv", in("x.html"), "--report", in("folder/x.html"))},
		{input, append(penalty, config)},
		{input, append(penalty, in("soft-student.npy"))},
		{input, append(penalty, in("hard-student.npy"))},
	} {
		specalign(t, nil, c.args...).refused(t, 2, c.want)
	}
	if left, _ := filepath.Glob(in(".*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// TestIrregularFiles: what is no regular file is refused at once, and not waited for.
func TestIrregularFiles(t *testing.T) {
	student, reference := planted(t, 40)
	folder := t.TempDir()
	pipe := filepath.Join(folder, "pipe.npy")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(folder, "page.html")
	for _, path := range []string{pipe, folder, "/dev/zero"} {
		for _, args := range [][]string{
			{"penalty", student, reference, "--config", path},
			{"compare", student, reference, "--config", path},
			{"compare", student, reference, "--ids", path},
			{"compare", student, reference, "--labels", path},
			{"compare", student, reference, "--report", page, "--texts", path},
			{"compare", student, reference, "--report", page, "--images", path},
		} {
			specalign(t, nil, args...).refused(t, 2, "not a regular file")
		}
	}
	for _, verb := range []string{"penalty", "compare", "metrics"} {
		specalign(t, nil, verb, pipe, reference).refused(t, 2, "not a regular file")
	}
}

// TestNumbersAreNumbers: JSON would take more than a number where one is asked for.
func TestNumbersAreNumbers(t *testing.T) {
	for _, text := range []string{"null", `"1"`, " 1", "", "true", "[1]", "nan", "0x1"} {
		for _, flag := range []string{"--eta", "--p"} {
			want := flag + " is " + strconv.Quote(text) + "; give a number"
			if text == "" {
				want = flag + " is empty; give a number"
			}
			specalign(t, nil, "penalty", "a.npy", "b.npy", flag+"="+text).refused(t, 2, want)
		}
	}
}

// TestFullOutput: output that cannot be written is an error of every verb.
func TestFullOutput(t *testing.T) {
	student, reference := planted(t, 40)
	for _, args := range [][]string{
		{"--version"}, {"-h"}, {"help"}, {"penalty", "-h"}, {"doctor"}, {"completion", "bash"},
		{"penalty", student, reference, "--json"}, {"compare", student, reference, "--json"}, {"metrics", student, reference},
	} {
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
	}
}

// TestHostileNames: what a terminal would obey is shown instead.
func TestHostileNames(t *testing.T) {
	const escape = "\x1b]0;owned\x07"
	for _, args := range [][]string{
		{"penalty", escape + ".npy", "b.npy"}, {"penalty", "a.npy", "b.npy", "--kernel", escape}, {escape}, {"--" + escape}, {"help", escape},
	} {
		specalign(t, nil, args...).refused(t, 2, `owned`)
		if o := specalign(t, nil, args...); strings.ContainsAny(o.stderr, "\x1b\x07") {
			t.Errorf("%q: %q", args, o.stderr)
		}
	}
	student, reference := planted(t, 40)
	names := listFile(t, 40, func(int) string { return escape })
	o := specalign(t, nil, "compare", student, reference, "--ids", names, "--labels", names)
	if o.code != 0 || !strings.Contains(o.stdout, "owned") || strings.ContainsAny(o.stdout+o.stderr, "\x1b\x07") {
		t.Errorf("%+v", o)
	}
	specalign(t, nil, "help", "foo").refused(t, 2, `there is no verb "foo"`)
}

// TestFewRows: one or two samples are little to compare, but no failure.
func TestFewRows(t *testing.T) {
	for n := 1; n <= 3; n++ {
		student, reference := planted(t, n)
		for _, flags := range []string{"", "--center", "--kernel=gaussian", "--kernel=gaussian --approximation=nystrom", "--kernel=gaussian --approximation=rff --num-features=64"} {
			o := specalign(t, nil, append([]string{"compare", student, reference, "--json"}, strings.Fields(flags)...)...)
			if o.code != 0 || o.stderr != "" {
				t.Errorf("%d rows %s: exit %d, %s", n, flags, o.code, o.stderr)
			}
		}
	}
}
