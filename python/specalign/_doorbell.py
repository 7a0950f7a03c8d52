"""A unary gRPC call on a unix socket, with nothing between: what a step's call through grpcio costs is mostly waiting.

grpcio hands an answer from its poller's thread to a worker's and from there to the caller's; between the cores of a
busy machine that takes 0.2 ms, as long as everything else that happens to a step outside the engine. Here the calling
thread itself sleeps in `recv`. The protocol is the same: gRPC over HTTP/2 (RFC 9113), of which a client with one short
call at a time needs little:

- Headers are sent as literals and, when they arrive, not read. So an answer with a message is all that is understood,
  and the sidecar is asked to put the status of a step that fails into one. A call that is answered in any other way is
  made again through grpcio, which has the last word. The sidecar lets its last step be repeated with the same result.
- The windows for what arrives are as wide as they can be, so that no answer waits for one to be opened; they are opened
  again after every mebibyte. A request that does not fit the server's windows, or one frame, is not sent.
- Padding is taken off. Header blocks of several frames, pings and the server's settings may come at any time. A server
  that ends the connection (GOAWAY) may still answer the call under way.
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
_INITIAL_WINDOW_SIZE = 4  # of the settings
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_POST, _HTTP = b"\x83", b"\x86"  # ":method: POST" and ":scheme: http" in HPACK's static table (RFC 7541, appendix A)
_WINDOW = 65535  # bytes that either end may send on a connection, or in one call, at first
_MAX_FRAME = 16384  # the default, which we do not change
_MAX_STREAM = _MAX_WINDOW = (1 << 31) - 1
_MAX_ANSWER = 4 << 20  # as grpcio
_NEAR = 0.05  # seconds before its time-out at which a call that is given up counts as having reached it
_OPEN_AGAIN = 1 << 20  # bytes received after which the connection's window is opened again


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
        self._window = self._call_window = _WINDOW  # bytes that may be sent, on the connection and in one call
        self._taken = 0  # bytes received since the connection's window was opened
        self._received = b""
        # What is to be sent with the next call, before this one waits for more, or at its end.
        self._due = (
            _PREFACE
            + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _MAX_WINDOW))
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - _WINDOW))
        )

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

    @property
    def usable(self) -> bool:
        """Whether there may be another call: not after the server ended the connection, or the last stream number."""
        return self._stream < _MAX_STREAM and self._window > -_MAX_WINDOW

    def call(self, message: bytes, timeout: float) -> bytes | None:
        """Call the method. Returns its answer's message, or None where it was answered without one: it failed.

        Raises `TimeoutError` and `Broken`; then, as after any other exception, the connection must be closed.
        """
        deadline = time.monotonic() + timeout
        self._stream += 2
        size = len(message) + 5
        if self._stream > _MAX_STREAM or size > min(self._window, self._call_window, _MAX_FRAME):
            raise Broken("specalign: the connection is used up")
        if timeout != self._timeout:
            self._timeout = timeout
            self._headers = self._fixed + _literal(b"grpc-timeout", _duration(timeout))
        request = (
            self._due
            + _frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
            + _frame(_DATA, _END_STREAM, self._stream, struct.pack(">xI", len(message)) + message)
        )
        self._window -= size
        self._due = b""
        try:
            self._socket.settimeout(timeout)
            self._send(request)
            answer = self._answer(deadline)
        except TimeoutError:
            raise
        except OSError as e:
            raise Broken(f"specalign: the connection failed: {e.strerror}") from None
        with contextlib.suppress(OSError):  # there is an answer; the next call will see
            self._send_due()
        if not answer:
            return None
        if len(answer) < 5 or answer[0] != 0 or int.from_bytes(answer[1:5], "big") != len(answer) - 5:
            raise Broken("specalign: the answer is not one plain message")
        return answer[5:]

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data, socket.MSG_NOSIGNAL)  # SIGPIPE would end programs that do not ignore it

    def _send_due(self) -> None:
        if self._due:
            due, self._due = self._due, b""
            self._send(due)

    def _answer(self, deadline: float) -> bytes:
        """Return the data of the present stream."""
        data = b""
        while True:
            kind, flags, stream, payload = self._next(deadline)
            if kind == _DATA:
                self._take(len(payload))
            if stream == self._stream:
                if kind == _DATA:
                    data += _unpadded(payload) if flags & _PADDED else payload
                    if len(data) > _MAX_ANSWER:
                        raise Broken("specalign: the answer is too long")
                elif kind == _RST_STREAM:
                    if time.monotonic() > deadline - _NEAR:
                        raise TimeoutError  # the server's clock was ahead
                    raise Broken("specalign: the server gave the call up")
                if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                    return data
            elif stream == 0:
                self._control(kind, flags, payload)

    def _take(self, size: int) -> None:
        """Count bytes of data, those of calls given up included, against the connection's window."""
        self._taken += size
        if self._taken >= _OPEN_AGAIN:
            self._due += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken))
            self._taken = 0

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        """Take in a frame that belongs to no call."""
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload) - 5, 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == _INITIAL_WINDOW_SIZE:
                    self._call_window = value
            self._due += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._due += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE and len(payload) == 4:
            self._window += int.from_bytes(payload, "big") & _MAX_WINDOW
        elif kind == _GOAWAY:
            self._window = -_MAX_WINDOW  # no other call
            if int.from_bytes(payload[:4], "big") & _MAX_STREAM < self._stream:
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
            self._send_due()
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


def _unpadded(payload: bytes) -> bytes:
    """Return the data of a padded frame: its first byte says how many bytes of padding end it."""
    if not payload or payload[0] >= len(payload):
        raise Broken("specalign: a frame has more padding than bytes")
    return payload[1 : len(payload) - payload[0]]


def _duration(seconds: float) -> bytes:
    """Return a time-out as gRPC writes it: at most eight digits and a unit."""
    milliseconds = math.ceil(seconds * 1000)
    return b"%dm" % milliseconds if milliseconds < 10**8 else b"%dS" % min(math.ceil(seconds), 10**8 - 1)
