"""What must not happen in a forked child: any use of the parent's channel, its locks or its sidecar.

A child that touches an inherited gRPC channel hangs, and breaks the parent's connection with it.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

from ._errors import ProcessError


class _Forgets(Protocol):
    def forget_in_child(self) -> None: ...


_registered: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: list[object] = []
_user = 0  # the process that first used gRPC here: this one or, in a fork, an ancestor


def register(holder: _Forgets) -> None:
    """Have `holder.forget_in_child()` called in every forked child."""
    _registered.add(holder)


def check_new() -> None:
    """Raise `ProcessError` where no connection can be made: in a fork of a process that had one."""
    global _user
    _user = _user or os.getpid()
    if _user != os.getpid():
        raise ProcessError(
            f"specalign: process {os.getpid()} is a fork of process {_user}, which used a sidecar before; no other one "
            "can be started here; start such workers with spawn or forkserver"
        )


def keep_for_ever(*things: object) -> None:
    """Keep references that only the child's end drops, so that no destructor of the parent's things runs there."""
    _kept.extend(things)


def _after_fork_in_child() -> None:
    for holder in list(_registered):
        holder.forget_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


def check(pid: int, what: str) -> None:
    """Raise `ProcessError` unless this is the process `pid` that made the thing."""
    if os.getpid() != pid:
        raise ProcessError(
            f"specalign: this {what} belongs to process {pid} and cannot be used in process {os.getpid()}, a fork of "
            "it; use it in the training process only, not in a DataLoader's workers"
        )


def not_picklable(what: str) -> ProcessError:
    """Return the error for an attempt to pickle or copy a sidecar or session."""
    return ProcessError(f"specalign: a {what} cannot be pickled or copied; make one in the process that uses it")
