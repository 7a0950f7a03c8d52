package plugin

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
)

// TestUndrained: a host that reads neither of the three streams does not stop the sidecar.
func TestUndrained(t *testing.T) {
	dir := shortDir(t)
	cmd := self("launched", "SPECALIGN_PLUGIN=1", "PLUGIN_UNIX_SOCKET_DIR="+dir, "SPECALIGN_LOG=trace")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errOut, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := readLine(out)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialRaw(strings.Split(line, "|")[3])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	s, err := newClient(conn, nil).Session(t.Context(), align.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1500 { // some 150 bytes of log each, into a pipe of 64 KiB
		step(t, s, 2, uint64(i))
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !ended(cmd.Process.Pid, 2*time.Second) {
		t.Fatal("it hangs")
	}
	log, _ := io.ReadAll(errOut)
	if len(log) < 32<<10 || len(log) > 128<<10 {
		t.Errorf("%d bytes of log", len(log))
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestLogWriter: lines that a full pipe loses are counted.
func TestLogWriter(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	defer func() { _ = w.Close() }()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	log := NewLogWriter(w)
	line := []byte(strings.Repeat("x", 999) + "\n")
	for range 20 {
		if n, err := log.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	buf := make([]byte, 1<<16)
	if n, err := r.Read(buf); err != nil || !bytes.HasPrefix(buf[:n], line) {
		t.Fatal(n, err)
	}
	_, _ = log.Write([]byte("after\n"))
	n, err := r.Read(buf)
	if err != nil || !strings.Contains(string(buf[:n]), "lines of the log were lost") || !strings.HasSuffix(string(buf[:n]), "after\n") {
		t.Errorf("%q, %v", buf[:n], err)
	}
}
