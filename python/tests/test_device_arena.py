"""Memory that trainer, sidecar and a GPU share, over a driver that only notes what it is asked for."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import defaultdict

import pytest

from specalign import _gpu


class Driver:
    """What is enqueued on each stream, and what an event stands behind."""

    def __init__(self):
        self.before, self.marked, self.pid = defaultdict(set), set(), os.getpid()
        self.pinned = set()

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

    def pin(self, ordinal, address, size):
        self.pinned.add((ordinal, address))
        return True

    def unpin(self, ordinal, address):
        self.pinned.remove((ordinal, address))


def test_the_mark_stands_behind_the_rows_of_all_streams():
    arena = object.__new__(_gpu.DeviceArena)
    arena.ordinal, arena.address, arena._event, arena._driver = 0, 1 << 20, ctypes.c_void_p(1), Driver()
    student, reference = _gpu.Place(0x1000, 64, 0), _gpu.Place(0x2000, 64, 0)
    arena.load(256, student, 64, 8, 7)
    arena.load(1024, reference, 64, 8, 9)
    assert arena._driver.marked == {student, reference}


def test_host_memory_that_a_gpu_copies_from_stays_pinned(sidecar, batch, monkeypatch):
    driver = Driver()
    monkeypatch.setattr(_gpu, "_driver", driver)
    with sidecar.session(k=2) as session:
        stepper = session._stepper
        stepper._refuse(3, "it cannot be shared")
        assert driver.pinned == {(3, stepper._arena.memory.ctypes.data)}
        session.step(*batch)  # in a larger arena
        assert driver.pinned == {(3, stepper._arena.memory.ctypes.data)}
    assert not driver.pinned


class Device:
    """Memory of a GPU that counts how often it is freed."""

    freed, message = 0, None

    def close(self):
        self.freed += 1


def test_memory_of_a_gpu_is_freed_after_an_interrupt_between_two_sidecars(sidecar, batch, monkeypatch):
    device = Device()
    with sidecar.session(k=2) as session:
        session.step(*batch)
        stepper = session._stepper
        monkeypatch.setattr(stepper, "_connection", None)  # the sidecar was lost, and the next one is not there yet
        monkeypatch.setattr(stepper, "_device", device)
        with monkeypatch.context() as during:
            during.setattr(stepper._host, "get", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                session.step(*batch)
    assert device.freed == 1


def test_memory_of_a_gpu_is_freed_of_a_session_that_nobody_holds(sidecar, batch):
    device = Device()
    session = sidecar.session(k=2)
    session.step(*batch)
    stepper = session._stepper
    connection, stepper._connection, stepper._device = stepper._connection, None, device  # the sidecar was lost
    connection.close_session(stepper._id, 5)
    del session, stepper
    sidecar.session(k=2).close()
    assert device.freed == 1
