"""The memory that trainer and sidecar share: one sealed memfd a session, made and owned by the trainer.

Layout, every part on a 64-byte boundary::

    state slot 0 | state slot 1 | student (n, d1) | reference (n, d2) | gradient (n, d1) float32

The sidecar keeps what a successor needs in the two slots, in turns, so that its death in the middle of a write
leaves the other one whole. The arena outlives the sidecar because the trainer holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import _gpu, _memory
from ._errors import Error
from ._messages import DType

_ALIGN = 64
_NONE = np.empty(0, dtype=np.uint8)


def up(size: int, to: int = _ALIGN) -> int:
    """Return `size` rounded up to a multiple of `to`."""
    return -(-size // to) * to


class Shape(NamedTuple):
    """The shape of a step: n rows of d1 (student) and d2 (reference) elements of the given types."""

    rows: int
    student_cols: int
    reference_cols: int
    student_dtype: DType
    reference_dtype: DType
    student_gpu: bool = False
    """Whether student and gradient are in the memory of a GPU."""
    reference_gpu: bool = False

    @property
    def gpu(self) -> bool:
        """Whether anything is in the memory of a GPU."""
        return self.student_gpu or self.reference_gpu

    def down(self) -> Shape:
        """Return the same shape in host memory."""
        return self._replace(student_gpu=False, reference_gpu=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a step lie, in bytes from the start of the arena, or of the device arena (`DeviceArena`)."""

    shape: Shape
    slot_size: int
    student: int
    reference: int
    gradient: int
    size: int
    device_size: int

    @classmethod
    def of(cls, shape: Shape, slot_size: int) -> Layout:
        """Lay out a step of the given shape behind two state slots of `slot_size` bytes each."""
        ends = {False: up(2 * slot_size), True: _gpu.HEAD}

        def place(gpu: bool, elements: int, size: int) -> int:
            at = ends[gpu]
            ends[gpu] = up(at + elements * size, _gpu.ALIGN if gpu else _ALIGN)
            return at

        mine, other = shape.rows * shape.student_cols, shape.rows * shape.reference_cols
        student = place(shape.student_gpu, mine, shape.student_dtype.size)
        reference = place(shape.reference_gpu, other, shape.reference_dtype.size)
        gradient = place(shape.student_gpu, mine, 4)
        return cls(shape, slot_size, student, reference, gradient, ends[False], ends[True])


class Memory:
    """Bytes, and arrays that view them."""

    def __init__(self, memory: np.ndarray = _NONE) -> None:
        """View `memory`, (bytes,) uint8."""
        self.memory = memory

    def view(self, offset: int, rows: int, cols: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Return (rows, cols) elements at a byte offset as an array; writing to it writes the memory."""
        return self.memory[offset : offset + rows * cols * dtype.itemsize].view(dtype).reshape(rows, cols)


class Arena(Memory):
    """A memfd that can neither shrink nor grow, mapped here and backed by real pages from the start."""

    def __init__(self, size: int, slot_size: int) -> None:
        """Make an arena of at least `size` bytes. Raises `Error` if the memory is not there."""
        self.size = up(max(size, 1), mmap.PAGESIZE)
        self.slot_size = slot_size
        self.fd = -1
        super().__init__()
        self._pinned: tuple[_gpu.Driver, int, int] | None = None  # and the GPU, and the address
        _memory.check(self.size, "a session's shared memory")
        try:
            self.fd = os.memfd_create("specalign-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            # Pages now, or ENOSPC now: a write to a hole that cannot be filled later is a SIGBUS.
            os.posix_fallocate(self.fd, 0, self.size)
            # The sidecar maps nothing that could be cut off under it.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            memory = mmap.mmap(
                self.fd, self.size, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ | mmap.PROT_WRITE
            )
        except OSError as e:
            self.close()
            raise Error(
                f"specalign: no shared memory of {self.size / 2**20:.1f} MiB for a session: {e.strerror}; "
                "shared memory counts against the memory limit of a container"
            ) from e
        self.memory = np.frombuffer(memory, dtype=np.uint8)

    def pin(self, gpu: int) -> None:
        """Keep the memory where it is, for copies from and to a GPU, where the driver can."""
        if self._pinned is None:
            with contextlib.suppress(_gpu.Unavailable):
                driver, address = _gpu.driver(), self.memory.ctypes.data
                if driver.pin(gpu, address, self.size):
                    self._pinned = driver, gpu, address

    def take_state(self, other: Arena) -> None:
        """Copy both state slots of another arena whose slots are no larger than this one's."""
        for slot in range(2):
            start, source = slot * self.slot_size, slot * other.slot_size
            self.memory[start : start + other.slot_size] = other.memory[source : source + other.slot_size]

    def close(self) -> None:
        """Close the descriptor and let go of the mapping, which ends with the last array that views it."""
        pinned, self._pinned = self._pinned, None
        if pinned is not None and pinned[0].pid == os.getpid():
            pinned[0].unpin(*pinned[1:])
        self.memory = _NONE
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()
