"""What the demonstration says while it runs."""

from __future__ import annotations

import sys
import time


class DemoError(Exception):
    """Something that the person who runs the demonstration can put right; its text says what and how."""


class Console:
    """Progress on standard error: headings with the time since the start, and a line that moves on a terminal.

    Without a terminal (a log file, CI) the moving line is printed at most every ten seconds, so that a log stays short
    and still shows that something happens.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._moving = False
        self._last = 0.0

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start

    def _end_line(self) -> None:
        if self._moving:
            sys.stderr.write("\n")
            self._moving = False

    def heading(self, text: str) -> None:
        """Begin a part of the work."""
        self._end_line()
        elapsed = int(self.seconds())
        sys.stderr.write(f"[{elapsed // 60}:{elapsed % 60:02d}] {text}\n")
        sys.stderr.flush()
        self._last = 0.0

    def line(self, text: str) -> None:
        """Say one thing that stays."""
        self._end_line()
        sys.stderr.write(f"       {text}\n")
        sys.stderr.flush()

    def progress(self, text: str, *, final: bool = False) -> None:
        """Show how far something is; the last call for it is the `final` one."""
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K       {text}")
            self._moving = True
            if final:
                self._end_line()
        elif final or time.monotonic() - self._last >= 10:
            sys.stderr.write(f"       {text}\n")
            self._last = time.monotonic()
        sys.stderr.flush()
