"""Taking the steps of one session: the memory that they share with the sidecar, and a new sidecar where one dies."""

from __future__ import annotations

import contextlib
import json
import logging
import struct
import time
from typing import Any

import numpy as np

from . import _checks, _memory
from ._arena import Arena, Layout, up
from ._arrays import Rows, check_shape, gradient, gradient_on_gpu, shape_of
from ._connection import PROTOCOL_MAJOR, Connection, DeviceLost, Forgotten, Lost
from ._errors import ClosedError, Error, InputError, SidecarError, StepTimeoutError
from ._gpu import DeviceArena, Place, Unavailable
from ._host import Host
from ._job import Job
from ._messages import OpenSessionReply, OpenSessionRequest, Region, StepRequest
from ._result import Result

_log = logging.getLogger("specalign")
_BACKOFF, _MAX_BACKOFF = 0.1, 2.0  # seconds before the second, third, ... restart
_OPEN_TIMEOUT = 5.0  # at least: a session that was opened when nobody waited any more would stay open
_BEGIN_AGAIN = 20.0  # in which a daemon that lost its GPU is to be there again
_CALL_TIMEOUT = 1.0  # for CloseSession
_DEFAULT_NUM_FEATURES = 4096  # of the settings
_ON_CPU = "the session runs on cpu"  # as the sidecar says it, too
_STATE = struct.Struct("<8sQQ")  # before the two slots: magic, steps done, bytes of a slot
_STATE_MAGIC = b"specstt1"


class Stepper:
    """What a session is in a sidecar, and in the next one if that dies: settings, memory, steps done.

    Only one thread at a time may use it, but for `closed`.
    """

    def __init__(self, host: Host, settings: dict[str, Any], timeout: float, max_restarts: int) -> None:
        """Open a session; `timeout` is that of every opening. Errors as those of `Sidecar.session`."""
        self._connection: Connection | None = None  # where the session is open, with the present arena
        self._device: DeviceArena | None = None  # which the sidecar has open, too, once the session is open
        self.closed = False
        """Whether nothing is to be begun or repeated any more."""
        self._host = host
        self.request = _checks.settings(settings)
        """The settings as they were given."""
        given = json.loads(self.request)
        self._on_cpu = given.get("device") == "cpu"
        features = given.get("num_features") or _DEFAULT_NUM_FEATURES
        self._num_features = features if isinstance(features, int) and 0 < features <= 1 << 20 else 0
        self._timeout = timeout
        self._max_restarts = max_restarts
        self.seq = 0
        """Steps done."""
        self.settings: dict[str, Any] = {}
        """The settings as the sidecar understood them."""
        self._id = ""
        self._closed_there = False
        self._on_gpu = False  # what the sidecar chooses by itself is one
        self._layout: Layout | None = None  # of the last step, if it fits the present arena
        self._said: tuple[str, Layout, bool, bytes] | None = None  # the last request but for its number
        slot = self._state_size(0, 0)
        self._arena = Arena(2 * slot, slot)
        self._unshared: DeviceArena | None = None  # which it has not, with the rows of the step under way
        self._shared = False  # whether a sidecar had any open
        self._refused: dict[int, str] = {}  # why rows on a GPU go through host memory
        self._pin: int | None = None  # the GPU that copies from and to the arena
        self._opened()

    @property
    def note(self) -> str:
        """Why rows on a GPU go through host memory; empty where they do not, or none were given."""
        return next(iter(self._refused.values()), "")

    def _opened(self) -> None:
        self._retry(lambda _: None, self._timeout, "OpenSession")

    def check(self, student: Rows, reference: Rows) -> None:
        """Raise `InputError` for rows that no step here can take, before anything is allocated for them."""
        check_shape(student, reference)
        if self._layout is not None and self._layout.shape == shape_of(student, reference):
            return
        arena = self._layout_of(student, reference).size
        if arena <= self._arena.size:
            return
        needed, total = arena + 4 * student.rows * student.cols, _memory.total()  # and the gradient that is returned
        if needed > total:
            raise InputError(
                f"specalign: {student.rows} rows of {student.cols} and {reference.cols} columns need "
                f"{needed / 2**30:.1f} GiB, and steps may take {total / 2**30:.1f} GiB here; give fewer rows a step"
            )

    def load(self, student: Rows, reference: Rows) -> Layout:
        """Put the rows of a step into the arena, a larger one if need be. Returns where they lie."""
        layout = self._layout
        gpu = self._stays_on(student, reference)
        shape = shape_of(student, reference, gpu)
        if layout is None or layout.shape != shape or (gpu is not None and not self._shares(gpu, layout.device_size)):
            needed = Layout.of(shape, self._state_size(student.cols, reference.cols))
            if gpu is not None and not self._share(gpu, needed.device_size):
                shape = shape.down()
                needed = Layout.of(shape, needed.slot_size)
            if needed.slot_size > self._arena.slot_size or needed.size > self._arena.size:
                self._replace_arena(needed.size, needed.slot_size)
            layout = Layout.of(shape, self._arena.slot_size)
            if layout.size > self._arena.size:
                self._replace_arena(layout.size, layout.slot_size)
            self._layout = layout
        for rows, offset, on in (
            (student, layout.student, shape.student_gpu),
            (reference, layout.reference, shape.reference_gpu),
        ):
            if on:
                assert self._device is not None
                source, stream = rows.on_gpu()
                width = rows.cols * rows.dtype.size
                self._device.load(offset, source, width, rows.rows, stream)
            else:
                rows.load(self._arena, offset)
        return layout

    # Rows that are on a GPU stay there, in memory that the sidecar opens, wherever that is possible.

    def _stays_on(self, student: Rows, reference: Rows) -> int | None:
        """Return the GPU on which rows are to stay: the student's or, if that is in host memory, the reference's."""
        gpu = reference.gpu if student.gpu is None else student.gpu
        if gpu is None or gpu in self._refused:
            return None
        connection = self._host.connection
        if self._on_cpu or (connection is not None and connection.hello.device == "cpu"):
            self._refuse(gpu, _ON_CPU)
            return None
        return gpu

    def _shares(self, gpu: int, size: int) -> bool:
        return self._device is not None and self._device.ordinal == gpu and self._device.size >= size

    def _share(self, gpu: int, size: int) -> bool:
        """Tell whether the sidecar sees so much memory of a GPU; where it does not yet, it is asked to open it."""
        if not self._shares(gpu, size):
            self._unshare()
            try:
                self._device = DeviceArena(gpu, size)
            except Unavailable as e:
                self._refuse(gpu, str(e))
                return False
            self._opened()
            unshared, self._unshared = self._unshared, None
            if unshared is not None:
                unshared.close()
        return self._shares(gpu, size)

    def _unshare(self) -> None:
        """Close the session, and free its memory on a GPU once it is closed."""
        device, self._device = self._device, None
        connection, self._connection = self._connection, None
        closed = self._close_there(connection)
        if device is not None and closed:
            device.close()
        elif device is not None and connection is not None:
            connection.forget_session(self._id, _CALL_TIMEOUT, device.close)

    def _refuse(self, gpu: int, why: str) -> None:
        """Let the rows of a GPU go through host memory from now on."""
        self._refused[gpu] = why
        if why == _ON_CPU and not self._shared:
            return  # as was to be expected
        self._pin = gpu
        self._arena.pin(gpu)
        _log.warning("specalign: rows on GPU %d go through host memory: %s", gpu, why)

    def _check_device(self, reply: OpenSessionReply) -> None:
        """Go on without memory of a GPU where the sidecar does not see the same."""
        device = self._device
        if device is None:
            return
        why = reply.device_note
        try:
            if not why and not reply.device_wrote:
                why = "the sidecar is of a release that does not open it"
            if not why and not device.agrees(reply.device_read, reply.device_wrote):
                why = "what the sidecar has opened is other memory"
        except Unavailable as e:
            why = str(e)
        if why:
            self._unshared, self._device = device, None
            self._refuse(device.ordinal, why)
        else:
            self._shared = True

    def _bring_down(self, layout: Layout) -> Layout:
        """Move the rows of the step under way to host memory: the sidecar that is to take it cannot see them."""
        device, self._unshared = self._unshared, None
        assert device is not None
        shape = layout.shape
        parts = []
        for offset, cols, dtype, on in (
            (layout.student, shape.student_cols, shape.student_dtype, shape.student_gpu),
            (layout.reference, shape.reference_cols, shape.reference_dtype, shape.reference_gpu),
        ):
            width = cols * dtype.size
            rows = np.empty(shape.rows * width, np.uint8)
            if on:
                device.take(Place(rows.ctypes.data, width), offset, width, shape.rows, 0)
            else:
                rows[:] = self._arena.memory[offset : offset + rows.size]
            parts.append(rows)
        device.close()
        down = Layout.of(shape.down(), self._arena.slot_size)
        if down.size > self._arena.size:
            self._replace_arena(down.size, down.slot_size)
        for offset, rows in zip((down.student, down.reference), parts, strict=True):
            self._arena.memory[offset : offset + rows.size] = rows
        self._layout = down
        return down

    def _layout_of(self, student: Rows, reference: Rows) -> Layout:
        """Return the least layout for a step with such rows."""
        return Layout.of(shape_of(student, reference), self._state_size(student.cols, reference.cols))

    def _state_size(self, d1: int, d2: int) -> int:
        """Return the bytes that the sidecar may need to remember a session with such columns.

        That is a direction of features, of random ones where a kernel has them, and some numbers.
        """
        return up(1024 + 4 * (max(d1, 2 * self._num_features) + max(d2, 2 * self._num_features)))

    def _replace_arena(self, size: int, slot_size: int) -> None:
        """Move to another arena, state and all. The sidecar is told with the next step."""
        old = self._arena
        arena = Arena(max(size, old.size), max(slot_size, old.slot_size))
        arena.take_state(old)
        if self._pin is not None:
            arena.pin(self._pin)
        self._arena, self._layout = arena, None
        connection, self._connection = self._connection, None
        self._close_there(connection)
        old.close()

    def _close_there(self, connection: Connection | None) -> bool:
        """Close the session in its sidecar. Tells whether it, or the sidecar, is gone."""
        if connection is not None and connection is self._host.connection:
            return connection.close_session(self._id, _CALL_TIMEOUT)
        return True

    def step(self, job: Job) -> Result:
        """Take the step of a job, whose rows `load` may have put into the arena; errors as those of `Session.step`."""
        layout = job.loaded or self.load(job.student, job.reference)
        seq, timeout, want_gradient = self.seq + 1, job.timeout, job.want_gradient

        def step(connection: Connection) -> Any:
            nonlocal layout
            if layout.shape.gpu and self._device is None:
                layout = self._bring_down(layout)
                if self._connection is None:
                    self._open(connection, timeout)
            return connection.step(self._step_request(layout, want_gradient, seq), seq, timeout)

        try:
            reply, restarts = self._retry(step, timeout, f"step {seq}")
        except (InputError, SidecarError):
            raise
        except BaseException as e:
            # A time-out or Ctrl-C: the sidecar may still be writing there. It keeps the old memory, we take new one.
            connection, self._connection = self._connection, None
            if connection is not None:
                device, self._device = self._device, None
                connection.forget_session(self._id, _CALL_TIMEOUT, None if device is None else device.close)
            with contextlib.suppress(Error):
                self._replace_arena(self._arena.size, self._arena.slot_size)
            if isinstance(e, StepTimeoutError) and self._host.end_if_hung():
                raise StepTimeoutError(
                    f"{e}, and the sidecar answers nothing else, either: the next step takes another"
                ) from None
            raise
        self.seq = seq
        grad = None
        if want_gradient and layout.shape.student_gpu:
            assert self._device is not None
            grad = gradient_on_gpu(self._device, layout.gradient, job.student, job.out)
        elif want_gradient:
            grad = gradient(self._arena, layout.gradient, job.student, job.out)
        return Result.of(reply, grad, restarts, "device" if layout.shape.gpu else "host")

    def _step_request(self, layout: Layout, want_gradient: bool, seq: int) -> bytes:
        """Return the message that asks for step `seq`; from step to step only that number changes."""
        said = self._said
        if said is None or said[0] != self._id or said[1] is not layout or said[2] != want_gradient:
            shape = layout.shape
            request = StepRequest(
                session=self._id,
                rows=shape.rows,
                student=Region(layout.student, shape.student_cols, shape.student_dtype, shape.student_gpu),
                reference=Region(layout.reference, shape.reference_cols, shape.reference_dtype, shape.reference_gpu),
                gradient_offset=layout.gradient,
                gradient_device=want_gradient and shape.student_gpu,
                no_gradient=not want_gradient,
            )
            said = self._said = self._id, layout, want_gradient, request.encode()
        return StepRequest.numbered(said[3], seq)

    def _retry(self, call: Any, timeout: float, what: str) -> tuple[Any, int]:
        """Run `call(connection)` with the session open there, replacing dead sidecars. Returns its value too."""
        restarts = losses = 0
        patience = 0.0
        while True:
            connection: Connection | None = None
            try:
                connection = self._host.get()
                if connection is not self._connection:
                    self._open(connection, timeout)
                return call(connection), restarts
            except Lost as e:
                assert connection is not None
                self._connection = None
                self._check_open_still()
                cure = "replacing it"
                if isinstance(e, Forgotten):  # it lives, perhaps with other sessions, and is asked again
                    cure = "opening the session again"
                    error = SidecarError(f"specalign: {what}: {e}")
                else:
                    daemon = self._host.process is None
                    error = self._host.drop(connection, f"{what}: {e}")
                    if isinstance(e, DeviceLost):
                        losses += 1
                        patience = time.monotonic() + _BEGIN_AGAIN if daemon else 0.0
                        if losses > 1:
                            self._leave_gpu(what)
            except InputError as e:
                if restarts == 0 or connection is self._connection:
                    raise
                text = str(e).removeprefix("specalign: ")
                raise SidecarError(f"specalign: {what}: the next sidecar refuses the session: {text}") from None
            except SidecarError as e:
                if connection is not None:  # it lives, and says that it failed
                    raise
                if time.monotonic() < patience:
                    time.sleep(_BACKOFF)
                    continue
                error, cure = e, "trying again"
            self._check_open_still()
            restarts += 1
            if restarts > self._max_restarts:
                raise error
            _log.warning("%s; %s (%d of %d)", str(error).splitlines()[0], cure, restarts, self._max_restarts)
            if restarts > 1:
                time.sleep(min(_BACKOFF * 2 ** (restarts - 2), _MAX_BACKOFF))

    def _leave_gpu(self, what: str) -> None:
        """Go on with the CPU, where the device was the sidecar's choice and its GPU fails again and again."""
        settings = json.loads(self.request)
        if settings.get("device", "auto") == "auto":
            self.request = _checks.settings({**settings, "device": "cpu"})
            _log.warning("specalign: %s: the GPU was lost again; this session goes on with the CPU", what)

    def _check_open_still(self) -> None:
        if self.closed:
            raise ClosedError("specalign: the session was closed during a step")

    def _open(self, connection: Connection, timeout: float) -> None:
        """Open the session, or go on with it, in the sidecar behind a connection."""
        self._check_open_still()
        while self._host.orphans:
            owner, orphan, memory = self._host.orphans.popleft()
            if owner is connection:
                connection.forget_session(orphan, _CALL_TIMEOUT, None if memory is None else memory.close)
            elif memory is not None:
                memory.close()
        arena, device = self._arena, self._device
        if device is not None:
            try:
                device.greet()
            except Unavailable as e:  # a lost GPU: the session goes on without
                self._unshared, self._device = device, None
                self._refuse(device.ordinal, str(e))
        reply = connection.open_session(
            OpenSessionRequest(
                protocol_major=PROTOCOL_MAJOR,
                settings_json=self.request,
                arena_fd=arena.fd,
                arena_size=arena.size,
                state_offset=0,
                state_slot_size=arena.slot_size,
                resume_seq=self.seq,
                device_arena=None if self._device is None else self._device.message,
            ),
            max(timeout, _OPEN_TIMEOUT),
        )
        hello = connection.hello
        if self._on_gpu and hello.ready and not hello.device.startswith("cuda"):
            _log.warning("specalign: the sidecar has no GPU any more: %s", hello.device_note)
        self._on_gpu = hello.device.startswith("cuda")
        self._connection, self._id = connection, reply.session
        self._check_device(reply)
        try:
            self.settings = json.loads(reply.settings_json)
        except ValueError as e:
            raise SidecarError(f"specalign: the sidecar's settings cannot be read: {e}") from None

    def state(self) -> bytes:
        """Return what `Session.state` does."""
        slots = self._arena.memory[: 2 * self._arena.slot_size].tobytes()
        return _STATE.pack(_STATE_MAGIC, self.seq, self._arena.slot_size) + slots

    def restore(self, state: bytes) -> None:
        """Do what `Session.restore` does."""
        seq, slot = check_state(state, self.seq)
        if seq == 0:
            return
        arena = Arena(max(2 * slot, self._arena.size), max(slot, self._arena.slot_size))
        source = np.frombuffer(state, np.uint8, 2 * slot, _STATE.size)
        for i in range(2):
            arena.memory[i * arena.slot_size : i * arena.slot_size + slot] = source[i * slot : (i + 1) * slot]
        self._close_there(self._connection)
        cold, self._arena, self._layout, self._connection = self._arena, arena, None, None
        self.seq = seq
        try:
            self._opened()
        except Error as e:
            self._arena, self.seq, self._connection = cold, 0, None
            arena.close()
            if isinstance(e, SidecarError) and e.stderr:
                raise
            raise InputError(f"specalign: the session's state cannot be used: {e}") from None
        cold.close()

    def leave(self) -> None:
        """Close the session in the sidecar."""
        self._closed_there = self._close_there(self._connection)

    def end(self) -> None:
        """Let go of the shared memory, once no step uses it any more."""
        self._arena.close()
        device, self._device = self._device, None
        if device is None:
            return
        if self._closed_there or self._connection is None:
            device.close()
        else:
            self._connection.forget_session(self._id, _CALL_TIMEOUT, device.close)

    def __del__(self) -> None:
        """Leave word that the session can be closed: no calls from a destructor."""
        if (self._connection is not None or self._device is not None) and not self.closed:
            self._host.orphans.append((self._connection, self._id, self._device))


def check_state(state: Any, steps: int) -> tuple[int, int]:
    """Return of a session's state the steps done and the size of a slot. Raises `InputError`.

    `steps` are those that the session has done that it is for.
    """
    if not isinstance(state, (bytes, bytearray, memoryview)):
        raise InputError(f"specalign: state is {_checks.brief(state)}; give the bytes that `state` returned")
    if len(state) < _STATE.size:
        raise InputError("specalign: the session's state is cut off")
    magic, seq, slot = _STATE.unpack_from(state)
    if magic != _STATE_MAGIC or len(state) != _STATE.size + 2 * slot or slot % 64 or seq >= 1 << 63:
        raise InputError("specalign: this is no state of a session, or it is damaged")
    if steps:
        raise InputError(f"specalign: a session's state is restored before its first step, not after {steps}")
    return seq, slot
