"""How far a pass is: rows, rate and time left, on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

EVERY = 60.0  # seconds between the lines where there is no terminal


class Progress:
    """A line on a terminal, or a line a minute in a log."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done = stage, total, 0
        self._terminal = sys.stderr.isatty()
        self._begin = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def add(self, rows: int) -> None:
        """Count rows that are done."""
        self.done += rows
        now = time.monotonic()
        if self._terminal:
            print(f"\r\x1b[K{self.text(now)}", end="", file=sys.stderr, flush=True)
        elif now - self._told >= EVERY:
            self._told = now
            print(f"specalign: {self.text(now)}", file=sys.stderr, flush=True)

    def text(self, now: float) -> str:
        """Say how far it is."""
        rate = self.done / max(now - self._begin, 1e-9)
        left = "" if not self.done else f", {_duration((self.total - self.done) / rate)} left"
        share = 100 * self.done // self.total
        return f"{self.stage} {share} %: {self.done:,} of {self.total:,} rows, {rate:,.0f} rows/s{left}"


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
