package progress

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNoTerminal(t *testing.T) {
	var b bytes.Buffer
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, bar := range []*Bar{New(&b), New(f)} {
		if bar != nil {
			t.Error("a bar where there is no terminal")
		}
		bar.Step("moments", 1, 2)
		bar.Close()
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if b.Len() > 0 {
		t.Errorf("%q", b.String())
	}
}

// TestTerminal shows a bar on a pseudo-terminal.
func TestTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminal here: ", err)
	}
	defer func() { _ = master.Close() }()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 100}); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slave.Close() }()
	bar := New(slave)
	if bar == nil {
		t.Fatal("no bar on a terminal")
	}
	for i := range 4 {
		bar.Step("moments", 100*i, 400)
		time.Sleep(120 * time.Millisecond)
	}
	bar.Step("samples", 10, 400)
	bar.Close()
	bar.Close()
	out := make([]byte, 1<<16)
	n, err := master.Read(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"moments", "50%", "200/400", "rows/s"} {
		if !strings.Contains(string(out[:n]), want) {
			t.Errorf("%q is missing in %q", want, out[:n])
		}
	}
	if strings.Contains(string(out[:n]), "\n") {
		t.Errorf("more than one line: %q", out[:n])
	}
}
