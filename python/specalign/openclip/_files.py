"""Writes files whole or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any, BinaryIO

_log = logging.getLogger("specalign.openclip")


def replace(path: str, write: Callable[[Any], Any]) -> None:
    """Write `path` by `write(binary file)`: a reader sees the file before or the one after, and so does a crash."""
    folder = os.path.dirname(path) or "."
    descriptor, draft = tempfile.mkstemp(prefix=".specalign-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(draft, 0o666 & ~mask)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


class JSONLines:
    """A file of JSON lines that grows for as long as a run, and never ends it: a line is there whole or not at all."""

    def __init__(self, path: str, what: str) -> None:
        """Append to `path`, which is made with the first line; `what` names what is missing where that fails."""
        self._path = path
        self._what = what
        self._file: BinaryIO | None = None
        self._warned = False

    def write(self, record: dict[str, Any]) -> None:
        """Append a line; a failure is logged once."""
        line = (json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        try:
            if self._file is None:
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 for the whole run
            end = self._file.seek(0, os.SEEK_END)
            if self._file.write(line) != len(line):  # half a line is on a disk that is full
                self._file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as e:  # a run of days does not end for this
            if not self._warned:
                _log.warning("specalign: %s misses %s: %s; the run goes on", self._path, self._what, e.strerror or e)
            self._warned = True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
