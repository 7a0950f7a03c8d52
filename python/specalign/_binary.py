"""Finding the sidecar's program."""

from __future__ import annotations

import os
from pathlib import Path

from ._errors import SidecarError

BUNDLED = Path(__file__).parent / "bin" / "specalign"


def find(explicit: str | os.PathLike[str] | None = None) -> str:
    """Return the path of the `specalign` program.

    The first of these that is there: `explicit`, `$SPECALIGN_BINARY` (both must then be executable), the program that
    came with this package, `specalign` on `$PATH`. Raises `SidecarError` that says how to get it.
    """
    for name, value in (("binary", explicit), ("SPECALIGN_BINARY", os.environ.get("SPECALIGN_BINARY"))):
        if value:
            path = os.path.abspath(value)
            if not _executable(path):
                raise SidecarError(f"specalign: {name} is {os.fspath(value)!r}, which is no executable file")
            return path
    if _executable(str(BUNDLED)):
        return str(BUNDLED)
    for folder in os.get_exec_path():
        path = os.path.join(folder, "specalign")
        if _executable(path) and not _script(path):
            return os.path.abspath(path)
    raise SidecarError(
        "specalign: the sidecar's program was not found: it is not in this package, and no `specalign` is on PATH. "
        "Install a wheel that has it, or run `make build` in the source tree and set SPECALIGN_BINARY to bin/specalign"
    )


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _script(path: str) -> bool:
    """Tell whether the file is a script, such as this package's own entry point, and so not the program."""
    with open(path, "rb") as f:
        return f.read(2) == b"#!"
