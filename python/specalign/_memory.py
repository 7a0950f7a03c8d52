"""How much memory there is, so that too large a batch is refused before the machine runs out of it.

Shared memory is taken page by page when it is allocated; where there is none left, the kernel ends processes instead of
failing the call. So sizes are compared with what there is first. Swap does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ._errors import Error

_SHARE = 0.9  # of what there is, as in the sidecar: the trainer's other needs come from the rest
_LITTLE = 16 << 20  # bytes that nobody looks twice at
_GROUPS = (  # of versions 2 and 1: controllers in /proc/self/cgroup, below the root, limit, use, what can be dropped
    ("", "", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def total() -> float:
    """Return the bytes that one step may need: a share of the machine's, or of the least limit of a control group."""
    return _SHARE * min([_meminfo("MemTotal"), *(limit for limit, _ in _groups())])


def available() -> float:
    """Return the bytes that can be allocated now, on the machine and in this process's control groups."""
    return _SHARE * min([_meminfo("MemAvailable"), *(max(0.0, limit - used) for limit, used in _groups())])


def check(size: int, what: str) -> None:
    """Raise `Error` unless `size` bytes can be allocated now; `what` they are is told."""
    if size > _LITTLE and size > (left := available()):
        raise Error(
            f"specalign: no memory of {size / 2**20:.1f} MiB for {what}: {left / 2**20:.1f} MiB are available; "
            "shared memory counts against the memory limit of a container"
        )


def _meminfo(name: str, file: str = "/proc/meminfo") -> float:
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(name + ":"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return math.inf


def _groups(root: str = "/sys/fs/cgroup", groups: str = "/proc/self/cgroup") -> Iterator[tuple[float, float]]:
    """Yield limit and use of every control group of this process that has a limit, and of those above it."""
    try:
        lines = Path(groups).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for of, below, limit, use, droppable in _GROUPS:
            # In a container the path may be the host's, and only the root be there.
            here = Path(root, below, path.lstrip("/"))
            while controllers == of and here.is_relative_to(Path(root, below)):
                try:
                    most, used = float((here / limit).read_text()), float((here / use).read_text())
                    stat = dict(pair.split() for pair in (here / "memory.stat").read_text().splitlines())
                    yield most, used - float(stat.get(droppable, 0))
                except (OSError, ValueError):  # no limit says `max`, the root says nothing
                    pass
                here = here.parent
