"""One gRPC connection to a sidecar: the calls of `specalign.v1` and go-plugin's, and what their failures mean."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from . import _messages as pb
from ._doorbell import Broken, Doorbell
from ._errors import Error, InputError, ProtocolError, SidecarError, StepTimeoutError
from ._wire import Message

PROTOCOL_MAJOR = 1  # of plugin/proto/specalign.proto
_STEPS_ALONE = 2  # the minor version since which there are connections for steps alone

_OPTIONS = [
    ("grpc.default_authority", "localhost"),  # else the percent-encoded socket path, which grpc-go refuses
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a new process never inherits the back-off of a dead one's address
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),  # repeating a step is this package's business: it knows the sequence numbers
]

# How near its time-out a call counts as having reached it, as a part of the time-out and in seconds: the sidecar's
# clock may be ahead, and what it says then is that the call was cancelled.
_NEAR, _NEAR_SECONDS = 0.05, 0.05

_STEP = "/specalign.v1.Sidecar/Step"
_CLOSE_SESSION = "/specalign.v1.Sidecar/CloseSession"

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

M = TypeVar("M", bound=Message)


class Lost(Exception):  # noqa: N818 (it is caught, never shown)
    """The sidecar went away during a call."""


class Forgotten(Lost):
    """The sidecar answers and does not know the session: it was closed, or a daemon was started anew."""


class DeviceLost(Lost):
    """The sidecar lost its GPU, and ends."""


def doorbells() -> bool:
    """Return what SPECALIGN_DOORBELL says of the short way of steps. Raises `InputError` for what it cannot mean."""
    value = os.environ.get("SPECALIGN_DOORBELL", "")
    if value.lower() not in ("", "0", "1", "on", "off"):
        raise InputError(f"SPECALIGN_DOORBELL is {value!r}; set it to on or off, or not at all")
    return value.lower() not in ("0", "off")


class Connection:
    """A channel to the sidecar's unix socket. Every method is a blocking call with a time-out in seconds."""

    def __init__(self, address: str, client: str) -> None:
        """Make the channel to `address` (a socket path); nothing is sent yet. `client` is a name for its log."""
        self.address = address
        self._client = client
        self._channel = grpc.insecure_channel("unix:" + address, options=_OPTIONS)
        self._calls: dict[str, Callable[..., Any]] = {}
        self._stdio: Any = None
        self._idle: list[Doorbell] = []  # appending and popping are safe among threads
        self._ringing: set[Doorbell] = set()  # so are adding and discarding
        self._direct = doorbells()  # steps go by doorbells
        self._closed = False
        self._forgetting: set[Any] = set()  # calls that nobody waits for; without a reference they would be cancelled
        self.hello = pb.HelloReply()

    def call(self, method: str, request: Message, reply: type[M], timeout: float | None) -> M:
        """Call `/service/method`. Raises `Lost`, or the error that the status stands for."""
        return reply.decode(self._call(method, request.encode(), timeout))

    def _call(self, method: str, request: bytes, timeout: float | None) -> bytes:
        stub = self._calls.get(method)
        if stub is None:
            # Without serialisers a message that cannot be read is our error, not gRPC's.
            stub = self._calls[method] = self._channel.unary_unary(method)
        begin = time.monotonic()
        try:
            data: bytes = stub(request, timeout=timeout)
        except grpc.RpcError as e:
            raise self._failure(e.code(), e.details() or "", method, timeout, begin) from None
        except ValueError as e:  # "Cannot invoke RPC on closed channel!"
            raise Lost(str(e)) from None
        return data

    def _failure(
        self, code: grpc.StatusCode, details: str, method: str, timeout: float | None, begin: float
    ) -> Exception:
        """Return the error that a status stands for, of a call that began at `begin`."""
        if code == grpc.StatusCode.CANCELLED:
            if self._closed:
                return Lost(f"{method}: the connection was closed here")
            if timeout is not None and time.monotonic() - begin > timeout - max(_NEAR_SECONDS, _NEAR * timeout):
                code = grpc.StatusCode.DEADLINE_EXCEEDED
        return _meaning(code, details, method, timeout)

    def greet(self, timeout: float) -> None:
        """Check that a specalign sidecar of our protocol version answers; its reply is `hello` from then on."""
        request = pb.HelloRequest(PROTOCOL_MAJOR, self._client)
        try:
            self.hello = self.call("/specalign.v1.Sidecar/Hello", request, pb.HelloReply, timeout)
        except SidecarError as e:
            raise ProtocolError(f"specalign: what answers at {self.address} is not a specalign sidecar: {e}") from None
        if self.hello.protocol_major != PROTOCOL_MAJOR:
            raise ProtocolError(
                f"specalign: this is {self._client} with protocol version {PROTOCOL_MAJOR}, the sidecar is "
                f"specalign {self.hello.version} with protocol version {self.hello.protocol_major}; "
                "install the same release of both"
            )
        self._direct = self._direct and self.hello.protocol_minor >= _STEPS_ALONE

    def check_health(self, timeout: float) -> None:
        """Ask go-plugin's health service. Raises `Lost` or `ProtocolError`."""
        reply = self.call(
            "/grpc.health.v1.Health/Check", pb.HealthCheckRequest("plugin"), pb.HealthCheckResponse, timeout
        )
        if reply.status != 1:
            raise ProtocolError(f"specalign: the sidecar's health is {reply.status}, expected 1 (serving)")

    def drain_stdio(self, sink: Callable[[bytes], None]) -> None:
        """Consume go-plugin's stdio stream for ever, in a thread: unread, it stops the sidecar after 64 KiB."""
        self._stdio = stream = self._channel.unary_stream("/plugin.GRPCStdio/StreamStdio")(b"")

        def run() -> None:
            try:
                for data in stream:
                    sink(pb.StdioData.decode(data).data)
            except (grpc.RpcError, ProtocolError):
                return  # the connection ended

        threading.Thread(target=run, name="specalign-stdio", daemon=True).start()

    def open_session(self, request: pb.OpenSessionRequest, timeout: float) -> pb.OpenSessionReply:
        """Open a session over an arena."""
        return self.call("/specalign.v1.Sidecar/OpenSession", request, pb.OpenSessionReply, timeout)

    def step(self, request: bytes, seq: int, timeout: float) -> pb.StepReply:
        """Compute step number `seq`. A reply to another step than the one asked for raises `ProtocolError`."""
        begin = time.monotonic()
        data = self._ring(request, timeout) if self._direct else None
        if data is None:
            left = begin + timeout - time.monotonic()
            if left <= 0:
                raise _too_long(_STEP, timeout)
            try:
                data = self._call(_STEP, request, left)
            except StepTimeoutError:
                raise _too_long(_STEP, timeout) from None
        reply = pb.StepReply.decode(data)
        if reply.code:
            code = _CODES.get(reply.code, grpc.StatusCode.UNKNOWN)
            raise self._failure(code, reply.message, _STEP, timeout, begin)
        if reply.seq != seq:
            raise ProtocolError(f"specalign: asked for step {seq}, the sidecar answered step {reply.seq}")
        return reply

    def _ring(self, request: bytes, timeout: float) -> bytes | None:
        """Call Step by a doorbell, one that no other thread uses. None: see what grpcio says."""
        bell, fresh = None, False
        try:
            if self._idle:
                with contextlib.suppress(IndexError):
                    bell = self._idle.pop()
            if bell is None:
                fresh = True
                bell = Doorbell.connect(self.address, timeout)
            self._ringing.add(bell)
            data = bell.call(pb.StepRequest.limited(request, timeout), timeout)
        except BaseException as e:
            if bell is not None:
                self._ringing.discard(bell)
                bell.close()
            if isinstance(e, TimeoutError):
                raise _too_long(_STEP, timeout) from None
            if not isinstance(e, Broken):
                raise
            if fresh:
                self._direct = False  # one that never worked will not the next time, either
            return None
        self._ringing.discard(bell)
        self._idle.append(bell)
        if self._closed:
            bell.close()
        return data

    def close_session(self, session: str, timeout: float) -> bool:
        """Close a session, and tell whether it, or the sidecar, is gone; that it is gone already is fine."""
        try:
            self.call(_CLOSE_SESSION, pb.CloseSessionRequest(session), pb.Empty, timeout)
        except Lost:
            return True
        except Error:
            return False
        return True

    def forget_session(self, session: str, timeout: float, gone: Callable[[], None] | None = None) -> None:
        """Close a session without waiting for it: it may wait for a step of another one.

        `gone` is called once nothing of the session is left in the sidecar, or of that; the call may then take as long
        as it takes.
        """
        request = pb.CloseSessionRequest(session).encode()
        try:
            call = self._channel.unary_unary(_CLOSE_SESSION).future(request, timeout=None if gone else timeout)
        except ValueError:  # the channel is closed
            return
        self._forgetting.add(call)

        def done(call: Any) -> None:
            self._forgetting.discard(call)
            if gone is not None and call.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE):
                gone()

        call.add_done_callback(done)

    def status(self, timeout: float) -> pb.StatusReply:
        """Ask what runs there."""
        return self.call("/specalign.v1.Sidecar/Status", pb.Empty(), pb.StatusReply, timeout)

    def shutdown(self, timeout: float) -> None:
        """Ask a launched sidecar to end. It never answers properly: the socket closes under the reply."""
        try:
            self.call("/plugin.GRPCController/Shutdown", pb.Empty(), pb.Empty, timeout)
        except (Lost, Error):
            return

    def close(self) -> None:
        """Close the channel; calls under way end as `Lost`."""
        self._closed = True
        if self._stdio is not None:
            self._stdio.cancel()
        self._channel.close()
        self._direct = False
        for bell in [*self._idle, *self._ringing]:
            bell.close()


def _meaning(code: grpc.StatusCode, details: str, method: str, timeout: float | None) -> Exception:
    name = method.rsplit("/", 1)[1]
    if code == grpc.StatusCode.UNAVAILABLE:
        return Lost(f"{name}: {details}")
    if code == grpc.StatusCode.ABORTED:
        return DeviceLost(f"{name}: {details}")
    if code == grpc.StatusCode.NOT_FOUND:
        return Forgotten(f"{name}: {details}")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return InputError("specalign: " + details.removeprefix("align: ").removeprefix("plugin: "))
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return _too_long(method, timeout)
    if code == grpc.StatusCode.FAILED_PRECONDITION:
        return ProtocolError(details)
    return SidecarError(f"specalign: {name} failed in the sidecar: {details} ({code.name})")


def _too_long(method: str, timeout: float | None) -> StepTimeoutError:
    return StepTimeoutError(f"specalign: {method.rsplit('/', 1)[1]} took longer than its time-out of {timeout:g} s")
