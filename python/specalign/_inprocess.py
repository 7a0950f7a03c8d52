"""The engine in this process: the sessions of libspecalign.so, for `Sidecar(isolation="none")`.

The library's functions release the interpreter's lock, and read and write arrays where they lie.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import re
import statistics
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import _checks, _library
from ._arena import Layout, Memory
from ._arrays import Rows, check_shape, dense, gradient, room, settle, shape_of
from ._calm import uninterrupted
from ._errors import ClosedError, Error, InputError, SidecarError, StepTimeoutError
from ._job import Job
from ._messages import DType, HelloReply, StatusReply, StepReply
from ._process import Lines
from ._result import Result
from ._stepper import check_state

_OK, _FAILED, _INPUT_ERROR, _TIMED_OUT, _STOPPED, _CLOSED = range(6)  # of capi/specalign_session.h

# The main thread takes a step itself if that is over within so many seconds, because a signal's handler, Ctrl-C's too,
# runs behind it only. A longer one is taken over by another thread, as the library can be asked to stop.
_SHORT = 0.1
_RECENT = 1024  # steps that latencies are of
_LEVELS = ["trace", "debug", "info", "warn", "error", "off"]  # of the log
_PREFIX = re.compile(r"^(align|plugin|session): ")


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("type", ctypes.c_int32),
        ("on_device", ctypes.c_int32),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("student", _Matrix),
        ("reference", _Matrix),
        ("gradient", ctypes.c_void_p),
        ("seq", ctypes.c_uint64),
        ("timeout", ctypes.c_double),
        ("stop", ctypes.POINTER(ctypes.c_int32)),
        ("stream", ctypes.c_uint64),
        ("gradient_on_device", ctypes.c_int32),
    )


class _Reply(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_double),
        ("gap", ctypes.c_double),
        ("residual", ctypes.c_double),
        ("gradient_error", ctypes.c_double),
        ("gradient_norm", ctypes.c_double),
        ("student_sigma", ctypes.c_double),
        ("reference_sigma", ctypes.c_double),
        ("seconds", ctypes.c_double),
        ("told", _library.Buffer),
        ("parts", ctypes.c_int32),
        ("eigenvalues", ctypes.c_int32),
        ("products", ctypes.c_int32),
        ("zero_rows", ctypes.c_int32),
        ("spectral", ctypes.c_int32),
        ("converged", ctypes.c_int32),
    )


class _Spot(NamedTuple):
    """Where rows or a gradient lie."""

    address: int
    stride: int  # elements from one row to the next
    stream: int | None  # of the GPU, in whose memory they lie; None: the host's
    owner: Any  # keeps them there


class InProcess:
    """The library, and what its sessions here have done: in the place of a `Host`. Threads share it."""

    def __init__(self, program: str | None, sink: Callable[[str], None] | None, device: str) -> None:
        """Load the library that lies beside `program`; log to `sink`, as a sidecar would.

        `device` is that of sessions; without the CPU only, the library with GPUs is loaded where there is one.
        """
        least = os.environ.get("SPECALIGN_LOG", "")
        if least and least.strip().lower() not in _LEVELS:
            raise InputError(f'specalign: SPECALIGN_LOG is "{least}"; give off, error, warn, info, debug or trace')
        self._shown = _LEVELS[_LEVELS.index(least.strip().lower() or "info") :]
        self.pid = os.getpid()
        self.closed = False
        self.orphans: deque[int] = deque()  # sessions that nobody holds any more
        self.why_no_gpu = (
            'the sidecar was opened with device="cpu"' if device == "cpu" else _library.why_no_gpu(program)
        )
        """Why this library has no GPUs; empty where it has."""
        self._library = _library.load(program) if self.why_no_gpu else _library.load(program, _library.GPU)
        self._lines = Lines(sink)
        self._open: set[int] = set()
        self._begin = time.monotonic()
        self._lock = threading.RLock()  # of the counts; a signal's handler may ask for them, too
        self._steps = self._failed = self._under_way = 0
        self._seconds = 0.0
        self._took: deque[float] = deque(maxlen=_RECENT)
        about = json.loads(self._ask("about"))
        self._hello = HelloReply(
            protocol_major=1, version=about["version"], pid=self.pid, device=about["device"], isa=about["isa"],
            ready=True, device_note=self.why_no_gpu or about["device_note"], threads=about["threads"],
        )  # fmt: skip
        h = self._hello
        self.log("INFO", f"in process {h.pid}: version={h.version} device={h.device} isa={h.isa} threads={h.threads}")

    def log(self, level: str, text: str) -> None:
        """Log a line, at a level that SPECALIGN_LOG lets through."""
        if level.lower() in self._shown:
            self._lines.take(f"[{level}] specalign: {text}".encode())

    def get(self) -> None:
        """Raise `ClosedError` if it is closed, and close the sessions that nobody holds."""
        if self.closed:
            raise ClosedError("specalign: the sidecar is closed")
        while self.orphans:
            self.shut(self.orphans.popleft())

    def hello(self) -> HelloReply:
        """Return who answers."""
        return self._hello

    def status(self, _: float) -> StatusReply:
        """Return what runs here. What belongs to a process of its own is 0."""
        self.get()
        with self._lock:
            took = sorted(self._took)
            return StatusReply(
                hello=self._hello, uptime_seconds=time.monotonic() - self._begin, sessions=len(self._open),
                steps=self._steps, failed_steps=self._failed, step_seconds=self._seconds, mode="in process",
                latency_median=statistics.median_high(took) if took else 0.0,
                latency_p99=took[len(took) * 99 // 100] if took else 0.0, steps_under_way=self._under_way,
            )  # fmt: skip

    def open(self, settings: str, state: bytes = b"") -> tuple[int, dict[str, Any], str]:
        """Open a session, one that goes on from a state if that is given. Returns its number, settings and device."""
        self.get()
        text, number = settings.encode(), ctypes.c_uint64()
        files = _library.File(None, text, len(text)), _library.File(None, state, len(state))
        resolved = json.loads(self._ask("open", *files, ctypes.byref(number)))
        self._open.add(number.value)
        return number.value, resolved["settings"], resolved["device"]

    def state(self, session: int, seq: int) -> bytes:
        """Return the state after a step, the last one or the one before."""
        return self._ask("state", ctypes.c_uint64(session), ctypes.c_uint64(seq))

    def shut(self, session: int) -> None:
        """Close a session; that it is closed already is fine."""
        if session in self._open:
            self._open.discard(session)
            error = _library.Buffer()
            close = self._library.specalign_session_close  # waits for the step of another session, too
            if uninterrupted(lambda: close(ctypes.c_uint64(session), ctypes.byref(error))):
                self._failure(_FAILED, error, "close")

    def step(self, session: int, step: _Step, reply: _Reply, timeout: float) -> int:
        """Take a step. Returns `_TIMED_OUT` or `_OK`, and raises what else may come."""
        step.timeout = timeout
        error = _library.Buffer()
        begin = time.monotonic()
        with self._lock:
            self._under_way += 1
        try:
            status: int = self._library.specalign_session_step(
                ctypes.c_uint64(session), ctypes.byref(step), ctypes.byref(reply), ctypes.byref(error)
            )
        finally:  # a signal's handler may raise here
            with self._lock:
                self._under_way -= 1
        with self._lock:
            if status == _OK:
                self._steps += 1
                self._seconds += reply.seconds
                self._took.append(time.monotonic() - begin)
            elif status != _TIMED_OUT:
                self._failed += 1
        if status == _OK:
            return status
        failure = self._failure(status, error, "Step")
        if status != _TIMED_OUT:
            raise failure
        return status

    def take(self, buffer: _library.Buffer) -> bytes:
        """Return what the library made, and free it."""
        return _library.taken(self._library, buffer)

    def timed_out(self, timeout: float) -> StepTimeoutError:
        """Count a step that took too long, and return the error for it."""
        with self._lock:
            self._failed += 1
        return StepTimeoutError(f"specalign: Step took longer than its time-out of {timeout:g} s")

    def _ask(self, what: str, *arguments: Any) -> bytes:
        """Call a function that gives bytes."""
        out, error = _library.Buffer(), _library.Buffer()
        function = getattr(self._library, f"specalign_session_{what}")
        status = function(*arguments, ctypes.byref(out), ctypes.byref(error))
        if status:
            raise self._failure(status, error, what)
        return self.take(out)

    def _failure(self, status: int, buffer: _library.Buffer, what: str) -> Error:
        """Return the error that a status stands for."""
        said, _, stack = self.take(buffer).partition(b"\0")
        text = said.decode(errors="replace")
        if stack:
            self.log("ERROR", f"{what}: {text}")
            for line in stack.splitlines():
                self._lines.take(line)
        if status == _INPUT_ERROR:
            return InputError("specalign: " + _PREFIX.sub("", text))
        if status == _CLOSED:
            return ClosedError("specalign: the session was closed during a step")
        return SidecarError(f"specalign: {what} failed in the library: {text}")

    def close(self) -> None:
        """Close the sessions; only in the process that opened them."""
        if self.pid != os.getpid():
            return
        self.closed = True
        for session in list(self._open):
            self.shut(session)


class InProcessStepper:
    """A session of the library, in the place of a `Stepper`. One thread at a time may use it, but for `closed`."""

    def __init__(self, host: InProcess, settings: dict[str, Any]) -> None:
        """Open a session. Errors as those of `Sidecar.session`."""
        self._id = 0
        self._host = host
        self.closed = False
        """Whether nothing is to be begun any more."""
        self.request = _checks.settings(settings)
        """The settings as they were given."""
        self.seq = 0
        """Steps done."""
        self._scratch = Memory()  # rows that cannot be read in place, and a gradient that cannot be written there
        self._kept: dict[str, Rows] = {}  # copies of rows that stay on the GPU, of the step that `load` prepared
        self._long_from = math.inf  # numbers in the rows of a step from which on it takes long
        self._text = b""  # of the last reply, and what it says
        self._words: list[str] = []
        device = settings.get("device", "auto")
        if host.why_no_gpu and str(device).startswith("cuda"):
            raise InputError(f"specalign: device is {device}, but {host.why_no_gpu}; give auto or cpu")
        self._id, self.settings, device = host.open(self.request)
        self._gpu = int(device[5:]) if device.startswith("cuda:") else None

    @property
    def note(self) -> str:
        """Why rows on a GPU go through host memory; empty where they do not."""
        return self._host.why_no_gpu

    def check(self, student: Rows, reference: Rows) -> None:
        """Raise `InputError` for rows that no step can take."""
        check_shape(student, reference)

    def load(self, student: Rows, reference: Rows) -> Layout:
        """Copy the rows of a step, whose owner may then change them. Returns where they lie; on the GPU they stay."""
        layout = self._laid_out(student, reference)
        self._kept = {}
        for side, rows in (("student", student), ("reference", reference)):
            if rows.tensor and rows.gpu is not None and rows.gpu == self._gpu:
                self._kept[side] = dataclasses.replace(rows, source=rows.source.clone())
            else:
                rows.load(self._scratch, getattr(layout, side))
        return layout

    def _laid_out(self, student: Rows, reference: Rows) -> Layout:
        layout = Layout.of(shape_of(student, reference), 0)
        if layout.size > self._scratch.memory.nbytes:
            self._scratch = Memory(np.empty(layout.size, np.uint8))
        return layout

    def step(self, job: Job) -> Result:
        """Take the step of a job, whose rows `load` may have copied; errors as those of `Session.step`."""
        layout, given = job.loaded, {"student": job.student, "reference": job.reference}
        spots: dict[str, _Spot] = {}
        for side, rows in (given if layout is None else self._kept).items():
            if (spot := self._spot(rows)) is not None:
                spots[side] = spot
        out = room(job.student) if job.want_gradient and job.out is None else job.out
        target = self._target(out) if job.want_gradient else None
        streams = [s.stream for s in (*spots.values(), target) if s is not None and s.stream is not None]
        stream = streams[0] if streams else None
        # One stream orders all that is on the GPU: what is on another one goes through host memory.
        spots = {side: s for side, s in spots.items() if s.stream in (None, stream)}
        if target is not None and (target.stream not in (None, stream) or _overlap(target, spots, given)):
            target = None
        if layout is None and (len(spots) < 2 or (job.want_gradient and target is None)):
            layout = self._laid_out(job.student, job.reference)
        step = _Step(seq=self.seq + 1, stream=stream or 0)
        base = self._scratch.memory.ctypes.data if layout else 0
        for side, rows in given.items():
            place = spots.get(side)
            if place is None:
                assert layout is not None
                if job.loaded is None:
                    rows.load(self._scratch, getattr(layout, side))
                elif side in self._kept:
                    self._kept[side].load(self._scratch, getattr(layout, side))
                place = _Spot(base + getattr(layout, side), rows.cols, None, None)
            on = place.stream is not None
            setattr(step, side, _Matrix(place.address, rows.rows, rows.cols, place.stride, rows.dtype, on))
        if target is not None:
            step.gradient, step.gradient_on_device = target.address, target.stream is not None
        elif job.want_gradient and layout is not None:
            step.gradient = base + layout.gradient
        reply = self._taken(step, job.timeout, (job, spots, target, self._scratch))
        self.seq += 1
        self._kept = {}
        memory = "device" if any(s.stream is not None for s in spots.values()) else "host"
        if not job.want_gradient:
            out = None
        elif target is None:
            assert layout is not None
            out = gradient(self._scratch, layout.gradient, job.student, job.out)
        elif target.stream is not None and job.future is not None:
            settle(out)
        return Result.of(reply, out, 0, memory)

    def _spot(self, rows: Rows) -> _Spot | None:
        """Return where the library reads rows; None where they must be copied."""
        if rows.gpu is None:
            place = rows.place()
            return None if place is None else _Spot(*place, None, rows)
        if rows.gpu != self._gpu:
            return None
        straight = rows.straight()
        there, stream = straight.on_gpu()
        stride, rest = divmod(there.pitch, rows.dtype.size)
        return None if rest else _Spot(there.address, stride, stream, straight)

    def _target(self, out: Any) -> _Spot | None:
        """Return where the library writes a gradient; None where it must be copied."""
        if out is None:
            return None
        address = dense(out)
        if address is not None:
            return _Spot(address, out.shape[1], None, out)
        rows = Rows.of(out, "out")
        if rows.gpu is None or rows.dtype != DType.FLOAT32:
            return None
        spot = self._spot(rows)
        straight = spot is not None and spot.stride == rows.cols and spot.owner.source is rows.source
        return spot if straight else None

    def _taken(self, step: _Step, timeout: float, used: Any) -> StepReply:
        """Take a step. `used` is what must live as long as the library may look at it."""
        reply = _Reply()
        main = threading.current_thread() is threading.main_thread()
        size = step.student.rows * (step.student.columns + step.reference.columns)
        left = timeout
        if not main or size < self._long_from:
            part = min(timeout, _SHORT) if main else timeout
            if self._host.step(self._id, step, reply, part) == _OK:
                return self._read(reply, step.seq)
            left -= part
        if left <= 0:
            raise self._host.timed_out(timeout)
        self._long_from, stop = min(size, self._long_from), ctypes.c_int32(0)
        step.stop = ctypes.pointer(stop)

        def ask_to_stop() -> None:
            stop.value = 1

        def work(_: Any = used) -> int:
            return self._host.step(self._id, step, reply, left)

        try:
            status = uninterrupted(work, ask_to_stop)
        except Error:
            raise
        except BaseException:
            self._scratch = Memory()  # the library may still be writing there, if it was too busy to stop
            raise
        if status != _OK:
            raise self._host.timed_out(timeout)
        if reply.seconds < _SHORT / 2:
            self._long_from = size + 1
        return self._read(reply, step.seq)

    def _read(self, reply: _Reply, seq: int) -> StepReply:
        count = reply.parts + reply.eigenvalues
        told = self._host.take(reply.told)
        numbers, text = list(struct.unpack_from(f"={count}d", told)), told[8 * count :]
        if text != self._text:
            self._text, self._words = text, text.decode(errors="replace").split("\0")[:-1]
        route, device, isa, approximation, *warnings = self._words
        return StepReply(
            seq=seq, value=reply.value, parts=numbers[: reply.parts], eigenvalues=numbers[reply.parts :],
            spectral=bool(reply.spectral), gap=reply.gap, residual=reply.residual,
            gradient_error=reply.gradient_error, products=reply.products, converged=bool(reply.converged),
            zero_rows=reply.zero_rows, route=route, device=device, isa=isa, seconds=reply.seconds, warnings=warnings,
            approximation=approximation, student_sigma=reply.student_sigma, reference_sigma=reply.reference_sigma,
            gradient_norm=reply.gradient_norm,
        )  # fmt: skip

    def state(self) -> bytes:
        """Return what `Session.state` does."""
        return self._host.state(self._id, self.seq)

    def restore(self, state: bytes) -> None:
        """Do what `Session.restore` does."""
        seq, _ = check_state(state, self.seq)
        if seq == 0:
            return
        try:
            number, self.settings, _ = self._host.open(self.request, bytes(state))
        except Error as e:
            raise InputError(f"specalign: the session's state cannot be used: {e}") from None
        cold, self._id, self.seq = self._id, number, seq
        self._host.shut(cold)

    def leave(self) -> None:
        """Close the session in the library; a step under way ends."""
        self._host.shut(self._id)

    def end(self) -> None:
        """Let go of memory, once no step uses it any more."""
        self._scratch = Memory()

    def __del__(self) -> None:
        """Leave word that the session can be closed: no calls from a destructor."""
        if self._id and not self.closed:
            self._host.orphans.append(self._id)


def _overlap(target: _Spot, spots: dict[str, _Spot], given: dict[str, Rows]) -> bool:
    """Tell whether a gradient would overwrite rows that are read in place."""
    end = target.address + 4 * given["student"].rows * given["student"].cols
    for side, spot in spots.items():
        size = spot.stride * given[side].rows * given[side].dtype.size
        if target.address < spot.address + size and spot.address < end:
            return True
    return False
