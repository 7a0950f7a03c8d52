"""The messages of `specalign.v1`, and those of go-plugin that a host needs.

What the fields mean is said in plugin/proto/specalign.proto, whose names and numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from ._wire import Kind, Message, varint_field, wire


@dataclass(slots=True)
class Empty(Message):
    """google.protobuf.Empty and the empty messages of go-plugin."""


@dataclass(slots=True)
class StdioData(Message):
    """plugin.StdioData of go-plugin: what the plugin's redirected stdout (channel 1) and stderr (2) carried."""

    channel: int = wire(1, Kind.INT32)
    data: bytes = wire(2, Kind.BYTES)


@dataclass(slots=True)
class HealthCheckRequest(Message):
    """grpc.health.v1.HealthCheckRequest."""

    service: str = wire(1, Kind.STRING)


@dataclass(slots=True)
class HealthCheckResponse(Message):
    """grpc.health.v1.HealthCheckResponse; status 1 is SERVING."""

    status: int = wire(1, Kind.INT32)


@dataclass(slots=True)
class HelloRequest(Message):
    """specalign.v1.HelloRequest."""

    protocol_major: int = wire(1, Kind.UINT32)
    client: str = wire(2, Kind.STRING)


@dataclass(slots=True)
class HelloReply(Message):
    """specalign.v1.HelloReply."""

    protocol_major: int = wire(1, Kind.UINT32)
    protocol_minor: int = wire(2, Kind.UINT32)
    version: str = wire(3, Kind.STRING)
    pid: int = wire(4, Kind.INT64)
    device: str = wire(5, Kind.STRING)
    isa: str = wire(6, Kind.STRING)
    ready: bool = wire(7, Kind.BOOL)
    device_note: str = wire(8, Kind.STRING)
    threads: int = wire(9, Kind.UINT32)


@dataclass(slots=True)
class DeviceArena(Message):
    """specalign.v1.DeviceArena: memory of a GPU that the sidecar opens."""

    uuid: bytes = wire(1, Kind.BYTES)
    memory: bytes = wire(2, Kind.BYTES)
    ready: bytes = wire(3, Kind.BYTES)
    size: int = wire(4, Kind.UINT64)


@dataclass(slots=True)
class OpenSessionRequest(Message):
    """specalign.v1.OpenSessionRequest."""

    protocol_major: int = wire(1, Kind.UINT32)
    settings_json: str = wire(2, Kind.STRING)
    arena_fd: int = wire(3, Kind.INT32)
    arena_size: int = wire(4, Kind.UINT64)
    state_offset: int = wire(5, Kind.UINT64)
    state_slot_size: int = wire(6, Kind.UINT64)
    resume_seq: int = wire(7, Kind.UINT64)
    device_arena: DeviceArena | None = wire(8, Kind.MESSAGE, DeviceArena)


@dataclass(slots=True)
class OpenSessionReply(Message):
    """specalign.v1.OpenSessionReply."""

    session: str = wire(1, Kind.STRING)
    settings_json: str = wire(2, Kind.STRING)
    device_read: bytes = wire(3, Kind.BYTES)
    device_wrote: bytes = wire(4, Kind.BYTES)
    device_note: str = wire(5, Kind.STRING)


class DType(IntEnum):
    """specalign.v1.DType: how an element of a matrix is stored."""

    UNSPECIFIED = 0
    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    FLOAT64 = 4

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return (0, 4, 2, 2, 8)[self]


MAX_ROWS, MAX_COLS = 1 << 24, 1 << 20  # of a step


@dataclass(slots=True)
class Region(Message):
    """specalign.v1.Region: a dense row-major matrix of the arena."""

    offset: int = wire(1, Kind.UINT64)
    cols: int = wire(2, Kind.UINT32)
    dtype: int = wire(3, Kind.INT32)
    device: bool = wire(4, Kind.BOOL)


@dataclass(slots=True)
class StepRequest(Message):
    """specalign.v1.StepRequest."""

    session: str = wire(1, Kind.STRING)
    seq: int = wire(2, Kind.UINT64)
    rows: int = wire(3, Kind.UINT32)
    student: Region | None = wire(4, Kind.MESSAGE, Region)
    reference: Region | None = wire(5, Kind.MESSAGE, Region)
    gradient_offset: int = wire(6, Kind.UINT64)
    no_gradient: bool = wire(7, Kind.BOOL)
    status_in_reply: bool = wire(8, Kind.BOOL)
    timeout_ms: int = wire(9, Kind.UINT32)
    gradient_device: bool = wire(10, Kind.BOOL)

    @staticmethod
    def numbered(request: bytes, seq: int) -> bytes:
        """Return the bytes of a request that has no `seq` as those of one that has."""
        return request + varint_field(2, seq)  # fields may come in any order

    @staticmethod
    def limited(request: bytes, timeout: float) -> bytes:
        """Return the bytes of a request with a time-out in seconds."""
        return request + varint_field(9, min(math.ceil(timeout * 1000), (1 << 32) - 1))


@dataclass(slots=True)
class StepReply(Message):
    """specalign.v1.StepReply."""

    seq: int = wire(1, Kind.UINT64)
    value: float = wire(2, Kind.DOUBLE)
    parts: list[float] = wire(3, Kind.DOUBLES)
    eigenvalues: list[float] = wire(4, Kind.DOUBLES)
    spectral: bool = wire(5, Kind.BOOL)
    gap: float = wire(6, Kind.DOUBLE)
    residual: float = wire(7, Kind.DOUBLE)
    gradient_error: float = wire(8, Kind.DOUBLE)
    products: int = wire(9, Kind.UINT32)
    converged: bool = wire(10, Kind.BOOL)
    zero_rows: int = wire(11, Kind.UINT32)
    route: str = wire(12, Kind.STRING)
    device: str = wire(13, Kind.STRING)
    isa: str = wire(14, Kind.STRING)
    seconds: float = wire(15, Kind.DOUBLE)
    warnings: list[str] = wire(16, Kind.STRINGS)
    approximation: str = wire(17, Kind.STRING)
    student_sigma: float = wire(18, Kind.DOUBLE)
    reference_sigma: float = wire(19, Kind.DOUBLE)
    gradient_norm: float = wire(20, Kind.DOUBLE)
    code: int = wire(21, Kind.UINT32)
    message: str = wire(22, Kind.STRING)


@dataclass(slots=True)
class CloseSessionRequest(Message):
    """specalign.v1.CloseSessionRequest."""

    session: str = wire(1, Kind.STRING)


@dataclass(slots=True)
class StatusReply(Message):
    """specalign.v1.StatusReply."""

    hello: HelloReply | None = wire(1, Kind.MESSAGE, HelloReply)
    uptime_seconds: float = wire(2, Kind.DOUBLE)
    sessions: int = wire(3, Kind.UINT32)
    steps: int = wire(4, Kind.UINT64)
    failed_steps: int = wire(5, Kind.UINT64)
    step_seconds: float = wire(6, Kind.DOUBLE)
    mode: str = wire(7, Kind.STRING)
    latency_median: float = wire(8, Kind.DOUBLE)
    latency_p99: float = wire(9, Kind.DOUBLE)
    steps_under_way: int = wire(10, Kind.UINT32)
    arena_bytes: int = wire(11, Kind.UINT64)
    resident_bytes: int = wire(12, Kind.UINT64)
    open_descriptors: int = wire(13, Kind.UINT32)
