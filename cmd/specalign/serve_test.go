package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/plugin"
)

// startDaemon runs `specalign serve --daemon` until the test ends, and waits for its attach file.
func startDaemon(t *testing.T, change func(*exec.Cmd), args ...string) (cmd *exec.Cmd, attach string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "specalign-test-") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	attach = filepath.Join(dir, "sidecar.json")
	cmd = command(context.Background(), []string{"SPECALIGN_LOG=warn", "TMPDIR=" + dir, "GORACE=atexit_sleep_ms=0"}, append([]string{"serve", "--daemon", "--attach", attach}, args...)...)
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(attach); err == nil {
			return cmd, attach
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not answer")
		}
	}
}

// TestConcurrentSessionsInC: the real sidecar, on its C kernels, with sessions of several clients at once; each gets
// the bits that it gets alone. (Under `go test -race` the sidecar has the race detector, too.)
func TestConcurrentSessionsInC(t *testing.T) {
	_, attach := startDaemon(t, nil)
	configs := make([]align.Config, 8)
	for i := range configs {
		cfg := align.DefaultConfig()
		cfg.K, cfg.Threads = 1+i, 1+i%2
		switch i % 4 {
		case 1:
			cfg.Kernel = align.KernelGaussian
		case 2:
			cfg.Objective = align.ObjectiveRelationalKL
		case 3:
			cfg.Objective = align.ObjectiveSchatten
		}
		configs[i] = cfg
	}
	run := func(cfg align.Config) (values [10]float64, err error) {
		c, err := plugin.Dial(t.Context(), attach)
		if err != nil {
			return values, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		s, err := c.Session(t.Context(), cfg)
		if err != nil {
			return values, err
		}
		defer func() { err = errors.Join(err, s.Close(t.Context())) }()
		grad := make([]float32, trialRows*trialCols)
		for i := range values {
			r, err := s.Step(t.Context(), trial(uint64(i)), trial(uint64(i+1)), grad)
			if err != nil {
				return values, err
			}
			values[i] = r.GetValue() + r.GetGradientNorm()
		}
		return values, nil
	}
	var wg sync.WaitGroup
	got := make([][10]float64, len(configs))
	for i, cfg := range configs {
		wg.Go(func() {
			var err error
			if got[i], err = run(cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, cfg := range configs {
		if want, err := run(cfg); err != nil || want != got[i] {
			t.Errorf("session %d: %v at once, %v alone; %v", i, got[i], want, err)
		}
	}
}

// inodes returns the sockets that a process has open.
func inodes(t *testing.T, pid int) (all []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			if m := regexp.MustCompile(`^socket:\[(\d+)\]$`).FindStringSubmatch(target); m != nil {
				all = append(all, m[1])
			}
		}
	}
	return all
}

// TestOffTheNetwork: a daemon has a unix socket and no other, unless metrics are asked for.
func TestOffTheNetwork(t *testing.T) {
	onNetwork := func(pid int) (n int) {
		for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "netlink"} {
			text, err := os.ReadFile("/proc/net/" + table)
			if err != nil {
				continue
			}
			for _, inode := range inodes(t, pid) {
				if regexp.MustCompile(`(?m)\s` + inode + `(\s|$)`).Match(text) {
					n++
				}
			}
		}
		return n
	}
	plain, _ := startDaemon(t, nil)
	if n := len(inodes(t, plain.Process.Pid)); n == 0 || onNetwork(plain.Process.Pid) > 0 {
		t.Errorf("%d sockets, %d of the network", n, onNetwork(plain.Process.Pid))
	}
	metrics, _ := startDaemon(t, nil, "--prometheus", "127.0.0.1:0")
	if n := onNetwork(metrics.Process.Pid); n != 1 {
		t.Errorf("with metrics %d sockets of the network", n)
	}
}

// TestRunsAsNobody: the sidecar needs no right that any user lacks.
func TestRunsAsNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	become := func(cmd *exec.Cmd, path string) {
		cmd.Path, cmd.Dir = path, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var path string
	_, attach := startDaemon(t, func(cmd *exec.Cmd) {
		dir := filepath.Dir(cmd.Args[len(cmd.Args)-1])
		path = filepath.Join(dir, "specalign")
		if err := errors.Join(os.WriteFile(path, program, 0o755), os.Chmod(path, 0o755), os.Chown(dir, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		become(cmd, path)
	})
	cmd := command(t.Context(), nil, "doctor", "--attach", attach)
	become(cmd, path)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "The daemon works") {
		t.Errorf("%v: %s", err, out)
	}
	if o := specalign(t, nil, "doctor", "--attach", attach); o.code != 1 || !strings.Contains(o.stdout, "is another user's (65534)") {
		t.Errorf("root: %+v", o)
	}
}
