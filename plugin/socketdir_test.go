package plugin

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
)

// socketHome has the sockets of this test, and of the processes that it starts, made in a directory of its own.
func socketHome(t testing.TB) string {
	t.Helper()
	dir := shortDir(t)
	t.Setenv("TMPDIR", dir)
	t.Setenv("XDG_RUNTIME_DIR", "")
	return dir
}

// names returns what lies in a directory.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// leaveSocketDir makes what a process that was killed leaves behind.
func leaveSocketDir(t testing.TB, home string) string {
	t.Helper()
	d, err := makeLockedDir(home)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d.path, "plugin123"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	_ = d.lock.Close()
	return d.path
}

func TestSocketDirSwept(t *testing.T) {
	home := socketHome(t)
	stale := leaveSocketDir(t, home)
	full := leaveSocketDir(t, home)
	for _, path := range []string{filepath.Join(full, "notes"), filepath.Join(stale, "plugin456")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(home, "other")
	link := filepath.Join(home, socketDirPrefix+"link")
	for _, err := range []error{os.Mkdir(other, 0o700), os.Symlink(other, link), os.WriteFile(filepath.Join(home, socketDirPrefix+"file"), nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	first, err := makeSocketDir(false)
	if err != nil {
		t.Fatal(err)
	}
	second, err := makeSocketDir(false)
	if err != nil {
		t.Fatal(err)
	}
	if exists(stale) {
		t.Error("a dead process's directory is left")
	}
	for _, path := range []string{first.path, second.path, full, filepath.Join(full, "notes"), other, link} {
		if !exists(path) {
			t.Errorf("%s was removed", path)
		}
	}
	if st, err := os.Stat(first.path); err != nil || st.Mode() != os.ModeDir|0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	for range 2 {
		first.remove()
		second.remove()
	}
	if exists(first.path) || exists(second.path) {
		t.Error("not removed")
	}
}

// TestSocketDirRace: nobody's directory is swept while somebody else makes one.
func TestSocketDirRace(t *testing.T) {
	home := socketHome(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				d, err := makeSocketDir(false)
				if err != nil {
					t.Error(err)
					return
				}
				if !exists(d.path) {
					t.Error("swept while in use")
				}
				d.remove()
			}
		})
	}
	wg.Wait()
	if left := names(t, home); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSocketDirUnfit(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/nonexistent")
	for _, name := range []string{strings.Repeat("d", 90), "a|b", "a%20b", "a?b", "a#b", "a\nb", "a\xff"} {
		home := filepath.Join(shortDir(t), name)
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", home)
		d, err := makeSocketDir(false)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(d.path) != "/tmp" {
			t.Errorf("%q", d.path)
		}
		d.remove()
	}
}

// TestNothingLeft kills the sidecar, and both ends at once; hosts are ours and go-plugin's own.
func TestNothingLeft(t *testing.T) {
	t.Run("sidecar killed", func(t *testing.T) {
		home := socketHome(t)
		c, err := Launch(t.Context(), self("launched"), nil)
		if err != nil {
			t.Fatal(err)
		}
		killSidecar(t, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left := names(t, home); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	t.Run("sidecar of another host killed", func(t *testing.T) {
		home := socketHome(t)
		launch := func() (*Client, *goplugin.Client) {
			host := goplugin.NewClient(&goplugin.ClientConfig{
				HandshakeConfig: Handshake, Plugins: Plugins, Cmd: self("launched"), SkipHostEnv: true,
				AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
			})
			t.Cleanup(host.Kill)
			c, err := dispense(host)
			if err != nil {
				t.Fatal(err)
			}
			return c, host
		}
		c, _ := launch()
		killSidecar(t, c)
		stale := names(t, home)
		_, host := launch() // sweeps
		if now := names(t, home); len(stale) != 1 || len(now) != 1 || stale[0] == now[0] {
			t.Errorf("before %v, after %v", stale, now)
		}
		host.Kill()
		if left := names(t, home); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	t.Run("both killed", func(t *testing.T) {
		home := socketHome(t)
		host := self("host")
		host.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the sidecar is in the same group
		out, err := host.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := host.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := readLine(out)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(-host.Process.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = host.Wait()
		if !ended(pid, time.Second) {
			t.Fatal("the sidecar still runs")
		}
		c, err := Launch(t.Context(), self("launched"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if now := names(t, home); len(now) != 1 {
			t.Errorf("beside the new sidecar's: %v", now)
		}
		_ = c.Close()
		if left := names(t, home); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func killSidecar(t *testing.T, c *Client) {
	t.Helper()
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(int(h.GetPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !ended(int(h.GetPid()), time.Second) {
		t.Fatal("it still runs")
	}
}
