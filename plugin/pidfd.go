package plugin

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is a process that is watched through a pidfd, which stands for that one process even after its number is
// given to another.
type process struct {
	pid   int
	pidfd *os.File
}

// watch takes over pidfd, the descriptor of process pid, and calls ended, once, in a goroutine of its own when that
// process has ended; never after release.
func watch(pid, pidfd int, ended func()) (*process, error) {
	f, err := whenReadable(pidfd, ended)
	if err != nil {
		return nil, fmt.Errorf("plugin: watching process %d: %w", pid, err)
	}
	return &process{pid: pid, pidfd: f}, nil
}

// whenReadable takes over a descriptor and calls then, once, in a goroutine of its own when there is something to read;
// never after the file was closed.
func whenReadable(fd int, then func()) (*os.File, error) {
	// Not blocking, so that the runtime's poller waits instead of a thread, and Close ends the wait.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "watched")
	conn, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	go func() {
		if conn.Read(readable) == nil {
			then()
		}
	}()
	return f, nil
}

// readable tells whether there is something to read: of a pidfd, that its process has ended.
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// alive tells whether the process still runs, by the kernel's word at this moment.
func (p *process) alive() bool {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	ended := true
	if conn.Control(func(fd uintptr) { ended = readable(fd) }) != nil {
		return false
	}
	return !ended
}

// release ends the watch.
func (p *process) release() { _ = p.pidfd.Close() }

// openParent returns the number and a pidfd of the process that launched this one.
func openParent() (pid, pidfd int, err error) {
	pid = os.Getppid()
	if pid <= 0 {
		return 0, -1, errors.New("plugin: the launching process is in another PID namespace, where its end cannot be noticed; use daemon mode (serve --daemon --attach FILE)")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, -1, fmt.Errorf("plugin: watching the launching process %d: %w", pid, err)
	}
	// It may have ended before we first looked, and left us to another parent: then nobody reads what we say, either.
	fds := []unix.PollFd{{Fd: 1}}
	_, _ = unix.Poll(fds, 0)
	if os.Getppid() != pid || fds[0].Revents&unix.POLLERR != 0 {
		_ = unix.Close(fd)
		return 0, -1, fmt.Errorf("plugin: the launching process %d has ended", pid)
	}
	return pid, fd, nil
}

// startTime returns when a process started, in clock ticks since the machine did: with the number it names a process.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, which may hold anything; the time is the 22nd.
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("plugin: /proc/%d/stat is not understood", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
