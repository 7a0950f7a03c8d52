"""A step on its way, and the future of one."""

from __future__ import annotations

import os
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from . import _fork
from ._arena import Layout
from ._arrays import Rows
from ._result import Result


@dataclass(slots=True, eq=False)
class Job:
    """A step on its way."""

    student: Rows
    reference: Rows
    want_gradient: bool
    out: Any
    timeout: float
    future: Future[Result] | None = None  # where somebody waits for one
    loaded: Layout | None = None  # where its rows lie in the arena, once they do
    ready: Any = ()  # where the caller's GPU streams stood; another thread waits for that


class StepFuture(Future[Result]):
    """A Future that raises in a forked child, where nobody would ever complete it."""

    def __init__(self) -> None:
        """It belongs to this process."""
        super().__init__()
        self._pid = os.getpid()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the step; see `concurrent.futures.Future.result`."""
        _fork.check(self._pid, "step")
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the step; see `concurrent.futures.Future.exception`."""
        _fork.check(self._pid, "step")
        return super().exception(timeout)
