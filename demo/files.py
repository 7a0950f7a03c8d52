"""Files that are either whole or absent, and fingerprints that tell whether they may be used again."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def written(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file to write that appears under its name only once it is complete.

    An interrupted or failed writer leaves what was there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's 0600 is for secrets
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_json(path: Path, value: object) -> None:
    """Write a JSON document, whole or not at all."""
    with written(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON document; None where there is none or where it is not one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def digest_of_sources(folder: Path) -> str:
    """Return a fingerprint of all Python files below a folder: their names and contents."""
    return fingerprint({str(path.relative_to(folder)): digest(path) for path in folder.rglob("*.py")})


def _digest(file: IO[bytes]) -> str:
    sha = hashlib.sha256()  # Python 3.10
    while block := file.read(1 << 20):
        sha.update(block)
    return sha.hexdigest()


def fingerprint(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON: equal for equal settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
