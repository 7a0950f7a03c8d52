package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// machine checks what the system grants: memory that two processes share, descriptors, sockets.
func (e *examination) machine() {
	s := section{e, "Machine"}
	s.verdict(tryMemfd(), "a sandbox (seccomp, gVisor) or an old kernel keeps sealed memory from being made; Linux 5.4 or later is needed",
		"shared memory", "sealed memfd, as the sidecar's arenas are")
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		err = unix.Close(pidfd)
	}
	s.verdict(err, "Linux 5.4 or later is needed, without a sandbox that forbids pidfd_open", "pidfd", "the sidecar sees its trainer end")
	fileSize(s)
	descriptors(s)
	lockedMemory(s)
	shm(s)
	dir, err := socketHome()
	s.verdict(err, "set TMPDIR, or XDG_RUNTIME_DIR, to a folder of yours with a short path", "sockets", "in %s", dir)
}

// socketHome returns the first of the places for sockets where one can be made, or else what is wrong with the first.
func socketHome() (string, error) {
	var first error
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		if dir == "" {
			continue
		}
		err := trySocketDir(dir)
		if err == nil {
			return dir, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// tryMemfd makes a sealed memfd of one page.
func tryMemfd() (err error) {
	fd, err := unix.MemfdCreate("specalign-doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.Fallocate(fd, 0, 0, int64(os.Getpagesize())); err != nil {
		return fmt.Errorf("fallocate of a memfd: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return fmt.Errorf("sealing a memfd: %w", err)
	}
	return nil
}

// fileSize warns where files, and so arenas, may not have a gibibyte.
func fileSize(s section) {
	const name, least = "file size", 1 << 30
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &r); err != nil {
		s.verdict(err, "", name, "")
		return
	}
	switch {
	case r.Cur == unix.RLIM_INFINITY:
		s.ok(name, "not limited")
	case r.Cur < least:
		s.add(statusWarn, name, "limited to "+bytesText(r.Cur), "an arena counts as a file: raise it with ulimit -f unlimited")
	default:
		s.ok(name, "limited to %s", bytesText(r.Cur))
	}
}

func descriptors(s section) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		s.verdict(err, "", "open files", "")
		return
	}
	if r.Cur < 1024 {
		s.add(statusWarn, "open files", fmt.Sprintf("limited to %d", r.Cur), "each session needs one; raise it with ulimit -n 4096")
		return
	}
	s.ok("open files", "limited to %d", r.Cur)
}

// lockedMemory tells a limit that many look for first: whatever it is, the sidecar works.
func lockedMemory(s section) {
	const name = "locked memory"
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		s.verdict(err, "", name, "")
		return
	}
	limit := "not limited"
	if r.Cur != unix.RLIM_INFINITY {
		limit = "limited to " + bytesText(r.Cur)
	}
	s.ok(name, "%s; the sidecar locks none", limit)
}

// shm looks at /dev/shm, which the data loader's workers need; the sidecar does not.
func shm(s section) {
	const dir, least = "/dev/shm", 256 << 20
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		s.add(statusWarn, dir, err.Error(), "PyTorch's data-loading workers need it; the sidecar does not")
		return
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < least {
		s.add(statusWarn, dir, bytesText(free)+" free", "PyTorch's data-loading workers need more; in Docker: --shm-size=2g")
		return
	}
	s.ok(dir, "%s free", bytesText(free))
}

// trySocketDir makes and removes a socket where daemons and hosts put theirs.
func trySocketDir(parent string) error {
	dir, err := os.MkdirTemp(parent, "specalign-doctor-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "socket")}); err != nil {
		return fmt.Errorf("no socket can be made in %s: %w", parent, err)
	}
	return nil
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
