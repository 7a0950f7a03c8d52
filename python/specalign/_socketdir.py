"""Directories for sockets, one each, and none left behind.

Whoever makes such a directory holds a lock on it (flock, shared) for as long as it lives, by which others know that it
is in use; whoever makes the next one removes those that nobody holds. The lock is the kernel's: it ends with the
process however that ends. The sidecar's Go code does the same, under the same names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile

from ._errors import SidecarError

PREFIX = "specalign-sockets-"
_PATH_BYTES = 80  # sun_path holds 108 bytes; go-plugin adds "/plugin" and up to ten digits
# A sidecar says in a line, divided by "|", where it listens; gRPC reads the address as a URI. What is no UTF-8 is a
# surrogate in Python.
_PLAIN = re.compile(r"/[^|%?#\x00-\x1f\x7f\ud800-\udfff]*")


class SocketDir:
    """A directory that only we can enter, with a path that is short enough for a unix socket in it."""

    def __init__(self) -> None:
        """Make it, in `$XDG_RUNTIME_DIR`, the temporary directory or /tmp. Raises `SidecarError`."""
        problem = "their paths are too long, or no address can hold them"
        for parent in (os.environ.get("XDG_RUNTIME_DIR"), _temporary(), "/tmp"):  # noqa: S108 (0700)
            if not parent or len(os.fsencode(parent)) + len(PREFIX) + 10 > _PATH_BYTES or not _PLAIN.fullmatch(parent):
                continue
            try:
                _sweep(parent)
                self.path, self._lock = _make(parent)
            except OSError as e:
                problem = f"{parent}: {e.strerror}"
                continue
            return
        raise SidecarError(f"specalign: no socket can be made in XDG_RUNTIME_DIR, TMPDIR or /tmp: {problem}")

    def remove(self) -> None:
        """Remove the directory with its socket, and end the lock. A second call does nothing."""
        if self._lock >= 0:
            _remove(self.path)
            os.close(self._lock)
            self._lock = -1


def _temporary() -> str | None:
    """Return Python's temporary directory, if one can be written."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return None


def _make(parent: str) -> tuple[str, int]:
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)  # 0700
        try:
            return path, _lock(path, fcntl.LOCK_SH)
        except FileNotFoundError:
            continue  # somebody who sweeps came before the lock


def _lock(path: str, how: int) -> int:
    """Lock a directory of ours. `FileNotFoundError` where it was removed meanwhile, another `OSError` if it is none."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, how)
        held, named = os.fstat(fd), os.lstat(path)
        if not os.path.samestat(held, named):
            raise FileNotFoundError(path)
        if held.st_uid != os.geteuid():
            raise PermissionError(path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sweep(parent: str) -> None:
    """Remove the directories whose makers are dead. Others', and those in use, stay."""
    for name in os.listdir(parent):
        if name.startswith(PREFIX):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                fd = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
                os.close(fd)


def _remove(path: str) -> None:
    """Remove a directory and the socket in it; anything else that somebody put there stays.

    go-plugin makes an empty file to find a name for its socket. One that is killed in that moment leaves it.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(path):
            found = entry.stat(follow_symlinks=False)
            empty = stat.S_ISREG(found.st_mode) and found.st_size == 0 and entry.name.startswith("plugin")
            if stat.S_ISSOCK(found.st_mode) or empty:
                os.unlink(entry.path)
        os.rmdir(path)
