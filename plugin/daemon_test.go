package plugin

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/specalign/specalign/align"
)

// daemon starts one and waits until it answers.
func daemon(t *testing.T, file string, env ...string) (cmd *exec.Cmd, log string) {
	t.Helper()
	cmd = self("daemon", append([]string{"SPECALIGN_TEST_ATTACH=" + file, "TMPDIR=" + filepath.Dir(file), "XDG_RUNTIME_DIR=/run"}, env...)...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	logged := make(chan struct{})
	ready := make(chan string, 1)
	go func() {
		defer close(logged)
		defer func() { _ = r.Close() }()
		var lines strings.Builder
		for {
			line, err := readLine(r)
			lines.WriteString(line + "\n")
			if strings.Contains(line, "ready:") {
				ready <- lines.String()
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		<-logged
	})
	select {
	case log = <-ready:
	case <-logged:
		t.Fatal("the daemon has ended")
	case <-time.After(20 * time.Second):
		t.Fatal("the daemon does not start")
	}
	return cmd, log
}

func TestDaemon(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "attach.json")
	cmd, _ := daemon(t, file)
	st, err := os.Stat(file)
	if err != nil || st.Mode() != 0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	a, err := ReadAttachFile(file)
	if err != nil || a.Pid != cmd.Process.Pid || !a.Alive() || a.ProtocolMajor != ProtocolMajor || a.Version != "test" {
		t.Errorf("%+v, %v", a, err)
	}
	if filepath.Dir(filepath.Dir(a.Socket)) != dir { // not in XDG_RUNTIME_DIR, which goes when its user logs out
		t.Errorf("the socket is %s", a.Socket)
	}
	if st, err := os.Stat(filepath.Dir(a.Socket)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}

	// Two clients at once; one of them is another process, and is killed.
	c, err := Dial(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Session(t.Context(), align.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	step(t, s, 8, 1)
	host := self("host", "SPECALIGN_TEST_ATTACH="+file)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := readLine(out); err != nil || line != strconv.Itoa(cmd.Process.Pid) {
		t.Fatalf("%q, %v", line, err)
	}
	if st, err := c.Status(t.Context()); err != nil || st.GetSessions() != 2 || st.GetMode() != "daemon" {
		t.Errorf("%v, %v", st, err)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	eventually(t, "the killed client's session has ended", func() bool {
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.GetSessions() == 1
	})
	step(t, s, 8, 2)

	// A second daemon at the same file is refused, with exit and message, and changes nothing.
	cmd2 := self("daemon", "SPECALIGN_TEST_ATTACH="+file, "TMPDIR="+dir)
	text, err := cmd2.CombinedOutput()
	if err == nil || !strings.Contains(string(text), "already serves") {
		t.Errorf("%v: %s", err, text)
	}
	step(t, s, 8, 3)
	if err := errors.Join(s.Close(t.Context()), c.Close()); err != nil {
		t.Error(err)
	}

	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if !ended(cmd.Process.Pid, 2*time.Second) {
		t.Error("it still runs")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := Dial(t.Context(), file); !isInput(err) {
		t.Errorf("no file: %v", err)
	}
}

// TestDaemonKilled: the next one at the same file takes over and removes what the dead one left; sessions go on there.
func TestDaemonKilled(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "attach.json")
	cmd, _ := daemon(t, file)
	c, err := Dial(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := c.Session(t.Context(), align.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	step(t, s, 8, 1)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := Dial(t.Context(), file); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("%v", err)
	}
	cmd, _ = daemon(t, file)
	c2, err := Dial(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c2.Close() }()
	if err := s.Resume(t.Context(), c2); err != nil {
		t.Fatal(err)
	}
	step(t, s, 8, 2)
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestAttachFile: a daemon writes over nothing that it does not know, and never half a file.
func TestAttachFile(t *testing.T) {
	file := filepath.Join(shortDir(t), "attach")
	self, err := describe("/run/specalign-daemon-1/socket", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := writeAttachFile(file, self); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadAttachFile(file); err != nil || *got != *self || !got.Alive() {
		t.Errorf("%+v, %v", got, err)
	}
	if err := writeAttachFile(file, self); !isInput(err) {
		t.Errorf("a live daemon's: %v", err)
	}
	for name, change := range map[string]func(*AttachFile){
		"another process now": func(a *AttachFile) { a.StartTime++ },
		"no process":          func(a *AttachFile) { a.Pid = 1 << 30 },
		"another boot":        func(a *AttachFile) { a.Boot = "x" },
	} {
		stale := *self
		change(&stale)
		if stale.Alive() {
			t.Errorf("%s: alive", name)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(writeAttachFile(file, &stale), writeAttachFile(file, self)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := *self
	other.Socket = "/run/specalign-daemon-2/socket"
	if err := removeAttachFile(file, &other); err != nil || !exists(file) {
		t.Errorf("another daemon's file: %v", err)
	}
	if err := removeAttachFile(file, self); err != nil || exists(file) {
		t.Errorf("its own file: %v", err)
	}
	for _, text := range []string{"", "notes of mine", `{"pid": 1}`, `{"pid": 1, "socket": "here", "protocol_major": 1}`} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := writeAttachFile(file, self); !isInput(err) || !strings.Contains(err.Error(), "not overwritten") {
			t.Errorf("%q: %v", text, err)
		}
		if b, _ := os.ReadFile(file); string(b) != text {
			t.Errorf("%q became %q", text, b)
		}
	}
	if err := writeAttachFile("/nonexistent/attach", self); !isInput(err) {
		t.Errorf("no directory: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Dir(file) + "/.*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAttachFile(file); !isInput(err) || !strings.Contains(err.Error(), "another user's") {
			t.Errorf("another user's file: %v", err)
		}
	}
	other = *self
	other.ProtocolMajor = 7
	_ = os.Remove(file)
	if err := writeAttachFile(file, &other); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), file); err == nil || !strings.Contains(err.Error(), "version 1") || !strings.Contains(err.Error(), "version 7") {
		t.Errorf("%v", err)
	}
}

func TestPrometheus(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "attach")
	_, log := daemon(t, file, "SPECALIGN_TEST_PROMETHEUS=127.0.0.1:0")
	c, err := Dial(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s := open(t, c, align.DefaultConfig())
	step(t, s, 8, 1)
	if _, err := s.Step(t.Context(), nan(8, 6), features(8, 9, 1), nil); !isInput(err) {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://[^" \n]*`).FindString(log)
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`specalign_info{device="cpu",isa="go",version="test"} 1`, "specalign_sessions 1\n", "specalign_steps_under_way 0\n",
		"specalign_step_duration_seconds_count 1\n", "specalign_step_duration_seconds_sum ", "specalign_engine_seconds_total ",
		`specalign_failed_steps_total{code="InvalidArgument"} 1`, "process_resident_memory_bytes ", "process_open_fds ", "go_goroutines ",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if strings.Contains(log, "WARN") {
		t.Error("a warning though only this machine is served")
	}
	cmd := self("daemon", "SPECALIGN_TEST_ATTACH="+filepath.Join(dir, "other"), "SPECALIGN_TEST_PROMETHEUS=nowhere:x", "TMPDIR="+dir)
	if text, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(text), `metrics at "nowhere:x"`) {
		t.Errorf("%v: %s", err, text)
	}
	if exists(filepath.Join(dir, "other")) {
		t.Error("an attach file is left")
	}
}

// TestPrometheusLint: promtool's rules for names, units and help texts.
func TestPrometheusLint(t *testing.T) {
	s, socket := serve(t, goDevices())
	step(t, open(t, dial(t, socket), align.DefaultConfig()), 8, 1)
	s.metrics.count(time.Second, nil, os.ErrInvalid)
	s.metrics.registry.MustRegister(s)
	problems, err := testutil.GatherAndLint(s.metrics.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%+v, %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(s.metrics.registry); err != nil || n < 10 {
		t.Errorf("%d metrics, %v", n, err)
	}
}

// TestPrometheusOpen: whoever lets the network read the metrics is told so.
func TestPrometheusOpen(t *testing.T) {
	if _, log := daemon(t, filepath.Join(shortDir(t), "attach"), "SPECALIGN_TEST_PROMETHEUS=:0"); !strings.Contains(log, "over the network") {
		t.Error(log)
	}
}

// TestStatus: what a daemon says of its work.
func TestStatus(t *testing.T) {
	f, d := newFaulty()
	s, socket := serve(t, d)
	c := dial(t, socket)
	session := open(t, c, align.DefaultConfig())
	for i := range 1100 {
		step(t, session, 4, uint64(i))
	}
	f.set(func() { panic("boom") })
	if _, err := session.Step(t.Context(), features(8, 6, 1), features(8, 9, 1), nil); err == nil {
		t.Fatal("no panic")
	}
	f.set(nil)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.GetSteps() != 1100 || st.GetFailedSteps() != 1 || st.GetStepsUnderWay() != 0 || st.GetSessions() != 1 || len(s.tally.took) != recent {
		t.Errorf("%v", st)
	}
	if m, p := st.GetLatencyMedian(), st.GetLatencyP99(); m <= 0 || p < m || p > 10 || st.GetStepSeconds() <= 0 {
		t.Errorf("latency %v and %v", m, p)
	}
	if a, r, d := st.GetArenaBytes(), st.GetResidentBytes(), st.GetOpenDescriptors(); a < 4*(6+9+6)*4 || r < 1<<20 || d < 5 || d > 1000 {
		t.Errorf("arenas %d, resident %d bytes, %d descriptors", a, r, d)
	}
}
