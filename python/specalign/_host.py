"""The living end of a sidecar, which its sessions share: a connection, and how to get another one."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from . import _fork
from ._calm import uninterrupted
from ._connection import Connection, Lost
from ._errors import ClosedError, Error, SidecarError, StepTimeoutError
from ._gpu import DeviceArena
from ._messages import HelloReply, StatusReply
from ._process import Cancel, Process

_ALIVE_TIMEOUT = 5.0  # seconds in which a sidecar whose step took too long must give a sign of life

Connect = Callable[[Cancel], tuple[Connection, Process | None]]
"""Launches or finds a sidecar; the process is that of one that was launched."""


class Host:
    """A connection to a sidecar, made anew where the last one was lost.

    Threads share it. It is apart from `Sidecar` so that a sidecar that nobody holds any more can be ended.
    """

    def __init__(self, connect: Connect) -> None:
        """Nothing is launched yet."""
        self._connect = connect
        self._lock = threading.Lock()  # of whoever makes or drops a connection
        self._place = threading.Lock()  # of connection, process and closed, for an instant
        self.pid = os.getpid()
        self.closed = False
        self.connection: Connection | None = None
        self._hello = HelloReply()
        self.process: Process | None = None
        # Sessions that nobody holds any more: where each is open, if it is, and its memory of a GPU.
        self.orphans: deque[tuple[Connection | None, str, DeviceArena | None]] = deque()

    def get(self) -> Connection:
        """Return the connection, made anew if the last one was lost."""
        with self._lock:
            if self.closed:
                raise ClosedError("specalign: the sidecar is closed")
            if self.connection is None:
                cancel = Cancel()
                return uninterrupted(lambda: self._make(cancel), cancel.ask)
            return self.connection

    def hello(self) -> HelloReply:
        """Return who answers, or did last."""
        connection = self.connection
        if connection is not None:
            self._hello = connection.hello
        return self._hello

    def status(self, timeout: float) -> StatusReply:
        """Ask what runs there. Raises `SidecarError`."""
        connection = self.get()
        try:
            return connection.status(timeout)
        except Lost as e:
            raise self.drop(connection, str(e)) from None

    def _make(self, cancel: Cancel) -> Connection:
        """Make the connection. One that nobody waits for any more is ended."""
        connection, process = self._connect(cancel)
        with self._place:
            if not (cancel.asked or self.closed):
                self.connection, self.process = connection, process
                self._hello = connection.hello
                return connection
        _end(connection, process)
        raise SidecarError("specalign: interrupted")

    def drop(self, lost: Connection, what: str) -> SidecarError:
        """Forget a connection that was lost. Returns the error to raise if there is to be no other."""
        with self._lock:
            if self.connection is not lost:
                return SidecarError(f"specalign: {what}")
            self.connection, process, self.process = None, self.process, None
            if process is None:
                lost.close()
                return SidecarError(f"specalign: the daemon at {lost.address} is gone: {what}")
            error = process.died(f"specalign: the sidecar (pid {process.pid}) is gone: {what}")
            uninterrupted(process.stop)
            return error

    def end_if_hung(self) -> bool:
        """Forget a sidecar that does not even say its status, which takes no turn; a launched one is killed."""
        connection, process = self.connection, self.process
        if connection is None:
            return False
        try:
            connection.status(_ALIVE_TIMEOUT)
        except StepTimeoutError:
            if process is not None:
                process.kill()
            self.drop(connection, "it hangs")
            return True
        except (Lost, Error):
            pass  # the next call will see
        return False

    def close(self) -> None:
        """End it all; only in the process that made it."""
        if self.pid != os.getpid():
            return
        with self._lock, self._place:
            self.closed = True
            connection, self.connection = self.connection, None
            process, self.process = self.process, None
        _end(connection, process)

    def forget_in_child(self) -> None:
        """Let go of what belongs to the parent, without closing it: its destructors must never run here."""
        _fork.keep_for_ever(self.connection, self.process)
        self.connection = self.process = None
        self._lock, self._place = threading.Lock(), threading.Lock()


def _end(connection: Connection | None, process: Process | None) -> None:
    if process is not None:
        process.stop()
    elif connection is not None:
        connection.close()
