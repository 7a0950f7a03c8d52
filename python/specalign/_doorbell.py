"""A unary gRPC call on a unix socket, with nothing between: what a step's call through grpcio costs is mostly waiting.

grpcio hands an answer from its poller's thread to a worker's and from there to the caller's; between the cores of a
busy machine that takes 0.2 ms, as long as everything else that happens to a step outside the engine. Here the calling
thread itself sleeps in `recv`. The protocol is the same: gRPC over HTTP/2 (RFC 9113), of which a client with one short
call at a time needs little. Headers are sent as literals and, when they arrive, not read. So an answer with a message
is all that this file understands; a call that fails, or is answered in any other way, is made again through grpcio,
which has the last word. The sidecar lets its last step be repeated with the same result.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time

from ._errors import Error

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_POST, _HTTP = b"\x83", b"\x86"  # ":method: POST" and ":scheme: http" in HPACK's static table (RFC 7541, appendix A)
_WINDOW = 65535  # bytes that may be sent on a connection at first
_MAX_FRAME = 16384  # the default, which we do not change
_MAX_STREAM = (1 << 31) - 1


class Broken(Error):  # noqa: N818 (it is caught, never shown)
    """The connection cannot be used any more, or never could."""


class Doorbell:
    """A connection for calls of one method, one after the other. It is not safe for concurrent use."""

    def __init__(self, connection: socket.socket, method: str) -> None:
        """Take over a connected socket. `method` is `/package.Service/Method`."""
        self._socket = connection
        self._fixed = (
            _POST
            + _HTTP
            + _literal(b":path", method.encode())
            + _literal(b":authority", b"localhost")
            + _literal(b"content-type", b"application/grpc")
            + _literal(b"te", b"trailers")
        )
        self._timeout = -1.0
        self._headers = b""
        self._stream = -1
        self._window = _WINDOW
        self._prefix = _PREFACE + _frame(_SETTINGS, 0, 0, b"")  # sent before the next call
        self._received = b""

    @classmethod
    def connect(cls, address: str, method: str, timeout: float) -> Doorbell:
        """Connect to a unix socket. Raises `Broken`."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(address)
        except OSError as e:
            connection.close()
            raise Broken(f"specalign: {address}: {e.strerror}") from None
        return cls(connection, method)

    def call(self, message: bytes, timeout: float) -> bytes | None:
        """Call the method. Returns its answer's message, or None where it was answered without one: it failed.

        Raises `TimeoutError` and `Broken`; then, as after any other exception, the connection must be closed.
        """
        deadline = time.monotonic() + timeout
        self._stream += 2
        size = len(message) + 5
        if self._stream > _MAX_STREAM or size > min(self._window, _MAX_FRAME):
            raise Broken("specalign: the connection is used up")
        if timeout != self._timeout:
            self._timeout = timeout
            self._headers = self._fixed + _literal(b"grpc-timeout", _duration(timeout))
        request = (
            self._prefix
            + _frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
            + _frame(_DATA, _END_STREAM, self._stream, struct.pack(">xI", len(message)) + message)
        )
        self._window -= size
        self._prefix = b""
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(request)
            answer = self._answer(deadline)
        except TimeoutError:
            raise
        except OSError as e:
            raise Broken(f"specalign: the connection failed: {e.strerror}") from None
        if not answer:
            return None
        if len(answer) < 5 or answer[0] != 0 or int.from_bytes(answer[1:5], "big") != len(answer) - 5:
            raise Broken("specalign: the answer is not one plain message")
        self._prefix += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", len(answer)))
        return answer[5:]

    def _answer(self, deadline: float) -> bytes:
        """Return the data of the present stream."""
        data = b""
        while True:
            kind, flags, stream, payload = self._next(deadline)
            if stream == self._stream:
                if kind == _DATA and not flags & _PADDED:
                    data += payload
                elif kind in (_DATA, _RST_STREAM):
                    raise Broken(f"specalign: a frame of kind {kind} with flags {flags} is not understood")
                if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                    return data
            elif kind == _SETTINGS and not flags & _ACK:
                self._prefix += _frame(_SETTINGS, _ACK, 0, b"")
            elif (
                kind == _PING and not flags & _ACK
            ):  # now, not with the next call: it measures, or asks for a sign of life
                self._socket.sendall(_frame(_PING, _ACK, 0, payload))
            elif kind == _WINDOW_UPDATE and stream == 0 and len(payload) == 4:
                self._window += int.from_bytes(payload, "big")
            elif kind == _GOAWAY:
                raise Broken("specalign: the server ends the connection")

    def _next(self, deadline: float) -> tuple[int, int, int, bytes]:
        """Return the next frame: kind, flags, stream and payload."""
        while True:
            received = self._received
            if len(received) >= 9:
                size = int.from_bytes(received[:3], "big")
                if size > _MAX_FRAME:
                    raise Broken(f"specalign: a frame of {size} bytes")
                if len(received) >= 9 + size:
                    self._received = received[9 + size :]
                    stream = int.from_bytes(received[5:9], "big") & _MAX_STREAM
                    return received[3], received[4], stream, received[9 : 9 + size]
            more = self._socket.recv(1 << 16)
            if not more:
                raise Broken("specalign: the connection was closed")
            self._received += more
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)

    def close(self) -> None:
        """Close the connection; a call under way in another thread ends as `Broken`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # a fork may hold the descriptor, too
        self._socket.close()


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header field without indexing, its name and value as they are (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value  # all shorter than 127 bytes


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _duration(seconds: float) -> bytes:
    """Return a time-out as gRPC writes it: at most eight digits and a unit."""
    milliseconds = math.ceil(seconds * 1000)
    return b"%dm" % milliseconds if milliseconds < 10**8 else b"%dS" % min(math.ceil(seconds), 10**8 - 1)
