package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// socketDirPrefix begins the names of the directories that hold one sidecar's socket each. Hosts in other languages
// use it, too: whoever makes such a directory also clears away those that the dead left.
const socketDirPrefix = "specalign-sockets-"

// socketDir is a directory that only our user can enter, made for one socket. As long as the process that made it
// lives, it holds a lock on the directory (flock, shared), by which others know that it is in use. The lock is the
// kernel's: it ends with the process however that ends, and unlike a number in the name it is never another's.
type socketDir struct {
	path string
	lock *os.File
	once sync.Once // of remove
}

// makeSocketDir makes a directory with a path that is short enough for a socket in it, and removes what processes that
// could not clean up after themselves left beside it.
//
// A daemon outlives its user's login, and XDG_RUNTIME_DIR does not. In TMPDIR the lock keeps systemd-tmpfiles off.
func makeSocketDir(daemon bool) (*socketDir, error) {
	last := errors.New("XDG_RUNTIME_DIR and TMPDIR are too long, or no address can hold them")
	parents := []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"}
	if daemon {
		parents = parents[1:]
	}
	for _, parent := range parents {
		if !filepath.IsAbs(parent) || len(parent)+len(socketDirPrefix)+30 > sunPath || !plain(parent) {
			continue
		}
		sweepSocketDirs(parent)
		d, err := makeLockedDir(parent)
		if err == nil {
			return d, nil
		}
		last = err
	}
	return nil, fmt.Errorf("plugin: no directory for the socket: %w", last)
}

// plain tells whether a path can be said: a sidecar says in a line, divided by "|", where it listens; gRPC reads the address
// as a URI.
func plain(path string) bool {
	return utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune("|%?#", r) })
}

// makeLockedDir makes a directory in parent and locks it.
func makeLockedDir(parent string) (*socketDir, error) {
	for {
		path, err := os.MkdirTemp(parent, socketDirPrefix+"*") // 0700
		if err != nil {
			return nil, err
		}
		lock, err := lockSocketDir(path, unix.LOCK_SH)
		if err == nil {
			return &socketDir{path: path, lock: lock}, nil
		}
		if errors.Is(err, os.ErrNotExist) {
			continue // somebody who sweeps came before the lock
		}
		_ = os.Remove(path)
		return nil, err
	}
}

// lockSocketDir locks the directory at path. Where it was removed meanwhile, that is an os.ErrNotExist; where it is
// something else, or another user's, an error.
func lockSocketDir(path string, how int) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	lock := os.NewFile(uintptr(fd), path)
	fail := func(op string, err error) (*os.File, error) {
		_ = lock.Close()
		return nil, &os.PathError{Op: op, Path: path, Err: err}
	}
	if err := unix.Flock(fd, how); err != nil {
		return fail("lock", err)
	}
	var held, named unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return fail("stat", err)
	}
	if err := unix.Lstat(path, &named); err != nil {
		return fail("stat", err)
	}
	if held.Dev != named.Dev || held.Ino != named.Ino {
		return fail("lock", unix.ENOENT)
	}
	if int(held.Uid) != os.Geteuid() {
		return fail("lock", unix.EPERM)
	}
	return lock, nil
}

// sweepSocketDirs removes the socket directories in parent whose makers are dead. Others', and those in use, stay.
func sweepSocketDirs(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return // whoever makes a directory here is told
	}
	for _, e := range entries {
		path := filepath.Join(parent, e.Name())
		if !strings.HasPrefix(e.Name(), socketDirPrefix) {
			continue
		}
		if lock, err := lockSocketDir(path, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			removeSocketDir(path)
			_ = lock.Close()
		}
	}
}

// removeSocketDir removes a directory made for a socket, with the socket that is still in it. Anything else that
// somebody put there stays, but for the empty file by which go-plugin finds a name for its socket: one that is killed in
// that moment leaves it.
func removeSocketDir(path string) {
	if !strings.HasPrefix(filepath.Base(path), socketDirPrefix) {
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		empty := err == nil && info.Mode().IsRegular() && info.Size() == 0 && strings.HasPrefix(e.Name(), "plugin")
		if e.Type()&os.ModeSocket != 0 || empty {
			_ = os.Remove(filepath.Join(path, e.Name()))
		}
	}
	_ = os.Remove(path) // where it is empty
}

// remove removes the directory and ends the lock. A second call does nothing.
func (d *socketDir) remove() {
	d.once.Do(func() {
		removeSocketDir(d.path)
		_ = d.lock.Close()
	})
}
