"""Writes folders whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_ELSEWHERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # what file systems that cannot exchange answer


def check_writable(path: str) -> None:
    """Raise `OSError` where a folder could not be made at `path`, as far as that is known beforehand."""
    parent = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    os.rmdir(tempfile.mkdtemp(prefix=f".{os.path.basename(path)}-", dir=parent))


def replace(path: str, write: Callable[[str], None]) -> None:
    """Make the folder `path` by `write(draft)`, in place of one that may be there.

    At every moment, a crash included, `path` is the folder before or the one after, on file systems that can exchange
    two names; on others there is a moment without one, and an error after it puts the folder before back.

    Args:
        path: absolute.
        write: fills an empty folder with files.

    Raises:
        OSError: it cannot be written; what was there is there.
    """
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}-", dir=parent)
    try:
        write(draft)
        os.chmod(draft, 0o755)  # noqa: S103 as a folder made by mkdir would be
        for name in os.listdir(draft):
            _sync(os.path.join(draft, name))
        _sync(draft)
        if os.path.lexists(path):
            _exchange(draft, path)
        else:
            os.rename(draft, path)
        _sync(parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # the folder before, or what could not be finished


def _exchange(a: str, b: str) -> None:
    """Let two folders change places."""
    try:
        _renameat2(a, b)
    except OSError as e:
        if e.errno not in _ELSEWHERE:
            raise
        aside = f"{a}-old"
        os.rename(b, aside)
        try:
            os.rename(a, b)
        except BaseException:
            os.rename(aside, b)
            raise
        os.rename(aside, a)


def _renameat2(a: str, b: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), b)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
