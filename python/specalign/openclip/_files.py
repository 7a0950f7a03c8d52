"""Writes files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any


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
