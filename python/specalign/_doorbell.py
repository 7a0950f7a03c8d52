"""The short way of steps: a connection to the sidecar's socket that carries them alone (plugin/proto/specalign.proto).

grpcio hands an answer from its poller's thread to a worker's and from there to the caller's, and the sidecar's gRPC
does likewise; between the cores of a busy machine that takes 0.2 ms, as long as everything else that happens to a step
outside the engine. Here the calling thread itself sleeps in `recv`, and at the other end the one that computes. A call
that fails otherwise than by its time-out is made again through grpcio, which has the last word: the sidecar lets its
last step be repeated with the same result.
"""

from __future__ import annotations

import contextlib
import socket
import time

from ._errors import Error

_GREETING = b"specalign steps\n"
_MAX_ANSWER = 4 << 20  # as grpcio


class Broken(Error):  # noqa: N818 (it is caught, never shown)
    """The connection cannot be used any more, or never could."""


class Doorbell:
    """A connection for steps, one after the other. It is not safe for concurrent use."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket."""
        self._socket = connection
        self._greeting = _GREETING  # goes before the first request

    @classmethod
    def connect(cls, address: str, timeout: float) -> Doorbell:
        """Connect to a unix socket. Raises `Broken`."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(address)
        except OSError as e:
            connection.close()
            raise Broken(f"specalign: {address}: {e.strerror}") from None
        return cls(connection)

    def call(self, request: bytes, timeout: float) -> bytes:
        """Send a StepRequest; return the StepReply.

        Raises `TimeoutError` and `Broken`; then, as after any other exception, the connection must be closed.
        """
        deadline = time.monotonic() + timeout
        frame = self._greeting + len(request).to_bytes(4, "big") + request
        self._greeting = b""
        try:
            if self._socket.gettimeout() != timeout:
                self._socket.settimeout(timeout)
            self._socket.sendall(frame, socket.MSG_NOSIGNAL)  # SIGPIPE would end programs that do not ignore it
            return self._answer(deadline)
        except TimeoutError:
            raise
        except OSError as e:
            raise Broken(f"specalign: the connection failed: {e.strerror}") from None

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _answer(self, deadline: float) -> bytes:
        answer, end = b"", 4
        while True:
            more = self._socket.recv(4096)
            if not more:
                raise Broken("specalign: the connection was closed")
            answer += more
            if len(answer) >= 4:
                end = 4 + int.from_bytes(answer[:4], "big")
                if end > 4 + _MAX_ANSWER:
                    raise Broken("specalign: the answer is too long")
                if len(answer) == end:
                    return answer[4:]
                if len(answer) > end:
                    raise Broken("specalign: more than one answer")
            self._wait_until(deadline)

    def close(self) -> None:
        """Close the connection; a call under way in another thread ends as `Broken`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # a fork may hold the descriptor, too
        self._socket.close()
