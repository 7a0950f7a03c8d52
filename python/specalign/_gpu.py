"""Memory of an NVIDIA GPU that trainer and sidecar share, by the driver's own library: no other package is needed.

The trainer allocates it in the context that PyTorch uses, too, and hands out what CUDA calls IPC handles, of the memory
and of an event; the sidecar opens them. Rows are copied there on the caller's stream, with the event behind them; the
sidecar begins when that has come by. The gradient is there when its reply comes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import _messages as pb
from ._errors import Error

HEAD = 256  # bytes at the beginning, for the handshake
ALIGN = 256
_NONCE = 32  # bytes that each side writes for the other to read
_HANDLE = 64
_EVENT_FLAGS = 0x2 | 0x4  # CU_EVENT_DISABLE_TIMING, CU_EVENT_INTERPROCESS
_HOST, _DEVICE = 1, 2  # CU_MEMORYTYPE
_ORDINAL_OF_POINTER = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


class Unavailable(Error):  # noqa: N818 (it is a reason, told in messages)
    """The GPU, or its memory, cannot be used from here; the text says why."""


class _Copy2D(ctypes.Structure):  # CUDA_MEMCPY2D
    _fields_ = (
        ("src_x", ctypes.c_size_t),
        ("src_y", ctypes.c_size_t),
        ("src_type", ctypes.c_int),
        ("src_host", ctypes.c_void_p),
        ("src_device", ctypes.c_uint64),
        ("src_array", ctypes.c_void_p),
        ("src_pitch", ctypes.c_size_t),
        ("dst_x", ctypes.c_size_t),
        ("dst_y", ctypes.c_size_t),
        ("dst_type", ctypes.c_int),
        ("dst_host", ctypes.c_void_p),
        ("dst_device", ctypes.c_uint64),
        ("dst_array", ctypes.c_void_p),
        ("dst_pitch", ctypes.c_size_t),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Rows in memory: of a GPU, or of the host where `ordinal` is None."""

    address: int
    pitch: int  # bytes from one row to the next
    ordinal: int | None = None


class Driver:
    """As much of libcuda.so.1 as is needed. Every call raises `Unavailable` where it fails."""

    def __init__(self) -> None:
        """Load the library. Nothing is initialized that PyTorch has not initialized."""
        self.pid = os.getpid()
        try:
            self._lib = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise Unavailable("there is no NVIDIA driver: libcuda.so.1 was not found") from None
        self._contexts: dict[int, ctypes.c_void_p] = {}
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver."""
        try:
            function = getattr(self._lib, name)
        except AttributeError:
            raise Unavailable(f"the NVIDIA driver has no {name}") from None
        if code := function(*arguments):
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(code, ctypes.byref(text))
            raise Unavailable(f"{name}: {(text.value or b'unknown error').decode()} (CUDA error {code})")

    def uuid(self, ordinal: int) -> bytes:
        """Return the UUID of a GPU."""
        uuid = (ctypes.c_ubyte * 16)()
        self.call("cuDeviceGetUuid_v2", uuid, self._device(ordinal))
        return bytes(uuid)

    def _device(self, ordinal: int) -> ctypes.c_int:
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        return device

    @contextlib.contextmanager
    def current(self, ordinal: int) -> Iterator[None]:
        """Make a GPU's primary context, which is PyTorch's, that of this thread while the block lasts."""
        context = self._contexts.get(ordinal)
        if context is None:
            context = ctypes.c_void_p()
            self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device(ordinal))
            self._contexts[ordinal] = context
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._lib.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def copy(self, ordinal: int, to: Place, source: Place, width: int, rows: int, stream: int) -> None:
        """Enqueue a copy of rows of `width` bytes on a stream of a GPU."""
        c = _Copy2D(src_pitch=source.pitch, dst_pitch=to.pitch, width=width, height=rows)
        c.src_type, c.dst_type = (_HOST if p.ordinal is None else _DEVICE for p in (source, to))
        c.src_host, c.src_device = (source.address, 0) if source.ordinal is None else (None, source.address)
        c.dst_host, c.dst_device = (to.address, 0) if to.ordinal is None else (None, to.address)
        with self.current(ordinal):
            self.call("cuMemcpy2DAsync_v2", ctypes.byref(c), ctypes.c_void_p(stream))

    def wait(self, ordinal: int, stream: int) -> None:
        """Wait until a stream has done what it was given."""
        with self.current(ordinal):
            self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def ordinal_of(self, address: int) -> int:
        """Return the GPU in whose memory an address lies."""
        ordinal = ctypes.c_int()
        with self.current(0):
            self.call("cuPointerGetAttribute", ctypes.byref(ordinal), _ORDINAL_OF_POINTER, ctypes.c_uint64(address))
        return ordinal.value

    def pin(self, ordinal: int, address: int, size: int) -> bool:
        """Keep host memory where it is, so that GPUs copy from and to it directly. Tells whether that worked.

        It is done in the context of a GPU that is used anyway.
        """
        try:
            with self.current(ordinal):
                self.call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(size), 1)
        except Unavailable:
            return False
        return True

    def unpin(self, ordinal: int, address: int) -> None:
        """Undo `pin`."""
        with contextlib.suppress(Unavailable), self.current(ordinal):
            self.call("cuMemHostUnregister", ctypes.c_void_p(address))


_driver: Driver | None = None


def driver() -> Driver:
    """Return the driver. Raises `Unavailable`, in a fork of a process that has used it, too."""
    global _driver
    if _driver is None:
        _driver = Driver()
    if _driver.pid != os.getpid():
        raise Unavailable("a fork of a process that has used a GPU cannot use it")
    return _driver


class DeviceArena:
    """Memory of a GPU for the rows and the gradient of a session's steps."""

    def __init__(self, ordinal: int, size: int) -> None:
        """Allocate memory on a GPU and make it ready to be opened elsewhere. Raises `Unavailable`."""
        self.ordinal, self.size = ordinal, size
        self._driver = driver()
        self._pid = os.getpid()
        self.address = 0
        self._event = ctypes.c_void_p()
        self._nonce = os.urandom(_NONCE)
        memory, ready = (ctypes.create_string_buffer(_HANDLE) for _ in range(2))
        address = ctypes.c_uint64()
        call = self._driver.call
        try:
            with self._driver.current(ordinal):
                call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
                self.address = address.value
                call("cuEventCreate", ctypes.byref(self._event), ctypes.c_uint(_EVENT_FLAGS))
                call("cuIpcGetMemHandle", memory, ctypes.c_uint64(self.address))
                call("cuIpcGetEventHandle", ready, self._event)
            self.message = pb.DeviceArena(self._driver.uuid(ordinal), memory.raw, ready.raw, size)
        except Unavailable:
            self.close()
            raise

    def greet(self) -> None:
        """Write what the sidecar is to read."""
        self._head(self._nonce, 0)

    def agrees(self, read: bytes, wrote: bytes) -> bool:
        """Tell whether the sidecar sees this memory, by what it has read and written there."""
        return read == self._nonce and len(wrote) == _NONCE and self._head(None, _NONCE) == wrote

    def _head(self, data: bytes | None, at: int) -> bytes:
        """Write data to the head, or read as many bytes there."""
        buffer = ctypes.create_string_buffer(data or b"", _NONCE)
        here, there = Place(ctypes.addressof(buffer), _NONCE), self.place(at, _NONCE)
        to, source = (here, there) if data is None else (there, here)
        self._driver.copy(self.ordinal, to, source, _NONCE, 1, 0)
        self._driver.wait(self.ordinal, 0)
        return buffer.raw

    def place(self, offset: int, width: int) -> Place:
        """Return the place of dense rows of `width` bytes."""
        return Place(self.address + offset, width, self.ordinal)

    def load(self, offset: int, source: Place, width: int, rows: int, stream: int) -> None:
        """Enqueue the copy of rows to the arena, and behind it the mark that the sidecar waits for.

        There is one mark, which stands behind earlier rows, too, whatever stream those were copied on.
        """
        self._driver.copy(self.ordinal, self.place(offset, width), source, width, rows, stream)
        with self._driver.current(self.ordinal):
            self._driver.call("cuStreamWaitEvent", ctypes.c_void_p(stream), self._event, ctypes.c_uint(0))
            self._driver.call("cuEventRecord", self._event, ctypes.c_void_p(stream))

    def take(self, to: Place, offset: int, width: int, rows: int, stream: int) -> None:
        """Copy rows out of the arena, and wait for them."""
        self._driver.copy(self.ordinal, to, self.place(offset, width), width, rows, stream)
        self._driver.wait(self.ordinal, stream)

    def close(self) -> None:
        """Free the memory; the sidecar must have closed it. In a forked child it is the parent's."""
        address, self.address = self.address, 0
        event, self._event = self._event, ctypes.c_void_p()
        if self._pid != os.getpid():
            return
        with contextlib.suppress(Unavailable), self._driver.current(self.ordinal):
            if event:
                self._driver.call("cuEventDestroy_v2", event)
            if address:
                self._driver.call("cuMemFree_v2", ctypes.c_uint64(address))
