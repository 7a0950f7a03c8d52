package main

import (
	"bytes"
	"html"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReport(t *testing.T) {
	if _, err := os.Stat("../../report/web/dist/report.js"); err != nil {
		t.Skip("the report's program is not built; `make bundle` does it where Node.js is")
	}
	const n = 60
	student, reference := planted(t, n)
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	texts := listFile(t, n, func(int) string { return "it's <b>" })
	missing := listFile(t, n, func(int) string { return "nowhere.png" })
	write := func(name, text string) string {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	pipe := in("pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	page := in("it's a page.html")
	code := run([]string{"compare", student, reference, "--top", "2", "--texts", texts, "--report", page}, &stdout, &stderr)
	if code != 0 || !strings.Contains(stderr.String(), "report: "+page) || !strings.Contains(stderr.String(), "samples on the map") {
		t.Fatalf("%d: %s", code, stderr.String())
	}
	got, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(got, []byte("it&#39;s &lt;b&gt;")) || bytes.Contains(got, []byte("s <b>")) {
		t.Errorf("the page lacks its texts, or they are mark-up (%v)", err)
	}
	want := "specalign compare " + student + " " + reference + " --top 2 --texts " + texts + " --report '" + strings.ReplaceAll(page, "'", `'\''`) + "'"
	if !strings.Contains(html.UnescapeString(string(got)), want+"</code>") {
		t.Errorf("the page lacks the command %s", want)
	}

	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"picture missing", "nowhere.png: no such file", []string{"--images", missing}},
		{"picture undecodable", texts + ": image: unknown format", []string{"--images", listFile(t, n, func(int) string { return texts })}},
		{"picture cut off", "cut.png: unexpected EOF", []string{"--images", listFile(t, n, func(int) string { return write("cut.png", "\x89PNG\r\n\x1a\n\x00\x00") })}},
		{"picture without a path", "row 0 is empty", []string{"--images", listFile(t, n, func(int) string { return "" })}},
		{"picture a folder", folder + ": it is not a regular file", []string{"--images", listFile(t, n, func(int) string { return folder })}},
		{"picture overwritten", "--csv " + texts + " is one of the inputs", []string{"--images", listFile(t, n, func(int) string { return texts }), "--csv", texts}},
		{"picture a pipe", "pipe: it is not a regular file", []string{"--images", listFile(t, n, func(int) string { return pipe })}},
		{"pictures too few", "there are 3 images for 60 samples", []string{"--images", write("three.txt", "a.png\nb.png\nc.png\n")}},
		{"pictures damaged", "it does not begin as an .npy file does", []string{"--images", write("images.npy", "no")}},
		{"texts too few", "has 1 lines, but there are 60 samples", []string{"--texts", write("one.txt", "a\n")}},
		{"table and page are one", "are both", []string{"--csv", in("none.html")}},
		{"over an input", "is one of the inputs", []string{"--report", texts, "--texts", texts}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr bytes.Buffer
			path := in("none.html")
			code := run(append([]string{"compare", student, reference, "--report", path}, c.args...), &stdout, &stderr)
			if code != 2 || !strings.Contains(stderr.String(), c.want) || strings.Contains(stderr.String(), "cannot write") || strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("%d: %s", code, stderr.String())
			}
			if left, _ := filepath.Glob(in("*none.html*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	stderr.Reset()
	if code := run([]string{"compare", student, reference, "--images", missing}, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), "--report") {
		t.Errorf("%d: %s", code, stderr.String())
	}
}
