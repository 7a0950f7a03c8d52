"""The least that a step between two processes costs on this machine, to hold a transport against.

A forked child waits for a message on a socket, reads the rows in shared memory, writes the gradient there, and answers
after as long as an engine would take. What the parent's copies in, wake-up there, wake-up here and copy out take beside
that is the floor: no protocol, no checks, no session.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time

import numpy as np


class Floor:
    """A child process, and memory that it shares."""

    def __init__(self, rows: int, d1: int, d2: int) -> None:
        """Start the child; best before there are threads, which a fork leaves behind."""
        self._student = np.ones((rows, d1), np.float32)
        self._reference = np.ones((rows, d2), np.float32)
        self._gradient = np.empty((rows, d1), np.float32)
        shared = np.frombuffer(mmap.mmap(-1, 4 * rows * (2 * d1 + d2)), np.float32)
        self._at = shared[: rows * d1], shared[rows * d1 : rows * (d1 + d2)], shared[rows * (d1 + d2) :]
        self._socket, other = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._serve(other)
            finally:
                os._exit(0)
        other.close()

    def _serve(self, to: socket.socket) -> None:
        self._socket.close()
        while message := to.recv(8):
            begin = time.perf_counter()
            (seconds,) = struct.unpack("d", message)
            self._at[2][:] = self._at[0].sum() + self._at[1].sum()
            while time.perf_counter() - begin < seconds:
                pass
            to.sendall(struct.pack("d", time.perf_counter() - begin))

    def step(self, seconds: float) -> float:
        """Take a step whose work takes the child `seconds`; return what it took beside that, in seconds."""
        begin = time.perf_counter()
        np.copyto(self._at[0], self._student.ravel())
        np.copyto(self._at[1], self._reference.ravel())
        self._socket.sendall(struct.pack("d", seconds))
        (work,) = struct.unpack("d", self._socket.recv(8))
        np.copyto(self._gradient.ravel(), self._at[2])
        return time.perf_counter() - begin - float(work)

    def close(self) -> None:
        """End the child."""
        self._socket.close()
        os.waitpid(self._pid, 0)
