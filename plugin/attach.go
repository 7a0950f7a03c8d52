package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/internal/regular"
)

// AttachFile is what a daemon writes for those who want to join it: one JSON object, readable by its user only. Pid,
// start time and boot name one process for ever.
type AttachFile struct {
	Pid           int    `json:"pid"`
	StartTime     uint64 `json:"start_time"` // in clock ticks after the machine's start
	Boot          string `json:"boot"`       // of the machine, random
	Socket        string `json:"socket"`
	ProtocolMajor uint32 `json:"protocol_major"`
	ProtocolMinor uint32 `json:"protocol_minor"`
	Version       string `json:"version"`
}

// ReadAttachFile reads the file at path and checks that it is an attach file of this user's. An *align.InputError says
// what is wrong. Whether that daemon still runs is another question: see Alive.
func ReadAttachFile(path string) (*AttachFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not be waited for
	if err != nil {
		return nil, inputErrorf("plugin: the attach file cannot be read: %v", err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, inputErrorf("plugin: the attach file cannot be read: %v", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, inputErrorf("plugin: %s is no file", path)
	case int(st.Uid) != os.Geteuid():
		return nil, inputErrorf("plugin: the attach file %s is another user's (%d)", path, st.Uid)
	case st.Mode&0o022 != 0:
		return nil, inputErrorf("plugin: the attach file %s may be written by others; start the daemon again", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return nil, inputErrorf("plugin: the attach file cannot be read: %v", err)
	}
	var a AttachFile
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, inputErrorf("plugin: %s is no attach file: %v", path, err)
	}
	if a.Pid <= 0 || !filepath.IsAbs(a.Socket) || a.ProtocolMajor == 0 {
		return nil, inputErrorf("plugin: %s is no attach file: pid, socket or protocol_major is missing", path)
	}
	return &a, nil
}

// Alive tells whether the daemon that wrote the file still runs.
func (a *AttachFile) Alive() bool {
	boot, err := bootID()
	if err != nil || boot != a.Boot {
		return false
	}
	start, err := startTime(a.Pid)
	return err == nil && start == a.StartTime
}

// bootID names the time since the machine started.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// writeAttachFile writes the file at path, whole or not at all. A live daemon's is left alone; that is an
// *align.InputError. A dead one's is replaced, and the socket it left is removed.
func writeAttachFile(path string, a *AttachFile) error {
	unlock, err := lockDir(path)
	if err != nil {
		return err
	}
	defer unlock()
	switch old, err := ReadAttachFile(path); {
	case err == nil && old.Alive():
		return inputErrorf("plugin: daemon %d already serves %s; end it first, or give another file", old.Pid, path)
	case err == nil:
		removeSocketDir(filepath.Dir(old.Socket))
	default:
		if _, statErr := os.Lstat(path); !errors.Is(statErr, os.ErrNotExist) {
			return inputErrorf("%w; it is not overwritten", err)
		}
	}
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	out, err := regular.Create(path)
	if err != nil {
		return fmt.Errorf("plugin: writing the attach file: %w", err)
	}
	err = out.Chmod(0o600)
	if err == nil {
		_, err = out.Write(append(b, '\n'))
	}
	if err == nil {
		err = out.Commit()
	}
	if err != nil {
		_ = out.Discard()
		return fmt.Errorf("plugin: writing the attach file: %w", err)
	}
	return nil
}

// removeAttachFile removes the file at path if it is still a's.
func removeAttachFile(path string, a *AttachFile) error {
	unlock, err := lockDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its directory was removed, and the file with it
	}
	if err != nil {
		return err
	}
	defer unlock()
	if now, err := ReadAttachFile(path); err != nil || now.Socket != a.Socket {
		return nil // somebody removed or replaced it
	}
	return os.Remove(path)
}

// lockWait is how long lockDir waits for others, who need milliseconds. In a directory that is everybody's anybody may
// hold the lock for ever.
const lockWait = 10 * time.Second

// lockDir locks the directory of a file against other daemons that look at the same file. It leaves nothing behind.
func lockDir(path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, inputErrorf("plugin: the attach file's directory: %w", err)
	}
	fd := int(dir.Fd())
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	for begin := time.Now(); errors.Is(err, unix.EWOULDBLOCK) && time.Since(begin) < lockWait; {
		time.Sleep(lockWait / 500)
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, inputErrorf("plugin: another process has held the lock of %s for %v; put the attach file into a directory of your own", dir.Name(), lockWait)
		}
		return nil, fmt.Errorf("plugin: locking %s: %w", dir.Name(), err)
	}
	return func() { _ = dir.Close() }, nil
}
