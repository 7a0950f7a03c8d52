"""Memory of a GPU that trainer and sidecar share, over a driver that only notes in which order things may happen."""

from __future__ import annotations

import contextlib
import ctypes
from collections import defaultdict

from specalign import _gpu


class Streams:
    """What is enqueued on each stream, and what an event stands behind."""

    def __init__(self):
        self.before, self.marked = defaultdict(set), set()

    @contextlib.contextmanager
    def current(self, ordinal):
        yield

    def copy(self, ordinal, to, source, width, rows, stream):
        self.before[stream].add(source)

    def call(self, name, *arguments):
        if name == "cuEventRecord":
            self.marked = set(self.before[arguments[1].value])
        elif name == "cuStreamWaitEvent":
            self.before[arguments[0].value] |= self.marked


def test_the_mark_stands_behind_the_rows_of_all_streams():
    arena = object.__new__(_gpu.DeviceArena)
    arena.ordinal, arena.address, arena._event, arena._driver = 0, 1 << 20, ctypes.c_void_p(1), Streams()
    student, reference = _gpu.Place(0x1000, 64, 0), _gpu.Place(0x2000, 64, 0)
    arena.load(256, student, 64, 8, 7)
    arena.load(1024, reference, 64, 8, 9)
    assert arena._driver.marked == {student, reference}
