package plugin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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
