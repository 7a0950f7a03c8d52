package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mainKey is the environment variable that makes this test's program the command itself.
const mainKey = "SPECALIGN_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainKey) != "" {
		main() // does not return
	}
	// A shell starts what it runs in the background with SIGINT ignored, nohup with SIGHUP, and children inherit that. What
	// is caught here they begin with as the system has it.
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(m.Run())
}

// outcome is how the command ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// command prepares running the command; env is added to the environment, without what the tests' own says.
func command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SPECALIGN_") && !strings.HasPrefix(v, "PLUGIN_") && !strings.HasPrefix(v, "VIRTUAL_ENV=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, mainKey+"=1"), env...)
	return cmd
}

// specalign runs the command.
func specalign(t *testing.T, env []string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := command(ctx, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// refused fails the test unless the command ended with that code, one line on stderr that has want in it, and nothing
// on stdout.
func (o outcome) refused(t *testing.T, code int, want string) {
	t.Helper()
	if o.code != code || o.stdout != "" || !strings.HasPrefix(o.stderr, "specalign: ") || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, want) {
		t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and one line with %q", o.code, o.stdout, o.stderr, code, want)
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"penalt":                        `there is no verb "penalt"; did you mean penalty?`,
		"--nonsense":                    "there is no flag --nonsense; specalign -h",
		"serve --daemon":                "needs --attach FILE",
		"serve --attach x":              "belongs to --daemon",
		"serve --prometheus :1":         "belongs to --daemon",
		"serve now":                     `serve takes no argument, but "now"`,
		"serve":                         "not launched by a host",
		"serve --daemon --attach /no/f": "no such file or directory",
		"doctor x":                      `doctor takes no argument`,
		"penalty":                       "takes two files",
		"penalty a.npy":                 "not 1;",
		"penalty a.npy b.npy --k":       "--k needs a value; give a whole number",
	} {
		specalign(t, nil, strings.Fields(args)...).refused(t, 2, want)
	}
	specalign(t, []string{"SPECALIGN_LOG=loud"}, "serve", "--daemon", "--attach", t.TempDir()+"/a").refused(t, 2, `SPECALIGN_LOG is "loud"`)
	specalign(t, []string{"SPECALIGN_THREADS=-1"}, "serve", "--daemon", "--attach", t.TempDir()+"/a").refused(t, 2, `SPECALIGN_THREADS is "-1"`)
	specalign(t, []string{"SPECALIGN_ISA=sse9"}, "serve", "--daemon", "--attach", t.TempDir()+"/a").refused(t, 2, `SPECALIGN_ISA is "sse9", but this CPU has`)
	gone := t.TempDir()
	t.Chdir(gone)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	specalign(t, nil, "serve", "--daemon", "--attach", "f").refused(t, 2, "--attach f: the folder it is relative to was removed; give a full path")
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"-h"}, {"penalty", "-h"}, {"serve", "-h"}, {"doctor", "--help"}} {
		o := specalign(t, nil, args...)
		if o.code != 0 || o.stderr != "" || !strings.Contains(o.stdout, "Examples:\n  specalign ") {
			t.Errorf("%v: %+v", args, o)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if o := specalign(t, nil, "completion", shell); o.code != 0 || len(o.stdout) < 1000 {
			t.Errorf("completion %s: %+v", shell, o)
		}
	}
	if o := specalign(t, nil, "__complete", "penalty", "--obj"); !strings.Contains(o.stdout, "--objective") {
		t.Errorf("--obj is completed to %q", o.stdout)
	}
}

// TestVersion: the command and the Python package are one release.
func TestVersion(t *testing.T) {
	o := specalign(t, nil, "--version")
	if o.code != 0 || !strings.HasPrefix(o.stdout, "specalign "+version+" (") || strings.Count(o.stdout, "\n") != 1 {
		t.Errorf("%+v", o)
	}
	text, err := os.ReadFile("../../python/specalign/_version.py")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`__version__ = "(.*)"`).FindStringSubmatch(string(text)); m == nil || m[1] != version {
		t.Errorf("the Python package has %s, the command %s", m, version)
	}
}
