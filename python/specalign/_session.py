"""A session: one stream of steps with the same settings."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _checks, _fork, _memory
from ._arena import Arena, Layout, Shape, up
from ._arrays import Rows, check_out, gradient, moments, on_gpu, wait_for
from ._connection import PROTOCOL_MAJOR, Connection, Forgotten, Lost
from ._errors import ClosedError, Error, InputError, SidecarError, StepTimeoutError
from ._messages import MAX_COLS, MAX_ROWS, OpenSessionRequest, Region, StepRequest
from ._result import Result

if TYPE_CHECKING:
    from ._sidecar import Sidecar, _Host

_log = logging.getLogger("specalign")
_BACKOFF, _MAX_BACKOFF = 0.1, 2.0  # seconds before the second, third, ... restart
_CLOSE_TIMEOUT = 5.0  # for the step under way
_OPEN_TIMEOUT = 5.0  # at least: a session that was opened when nobody waited any more would stay open
_CALL_TIMEOUT = 1.0  # for CloseSession
_IDLE = 5.0  # after which the thread of `submit` ends
_DEFAULT_NUM_FEATURES = 4096  # of the settings
_MOST_SETTINGS = 1 << 16  # characters of JSON
_STATE = struct.Struct("<8sQQ")  # before the two slots: magic, steps done, bytes of a slot
_STATE_MAGIC = b"specstt1"


@dataclass(slots=True, eq=False)
class _Job:
    """A step on its way."""

    student: Rows
    reference: Rows
    want_gradient: bool
    out: Any
    timeout: float
    future: Future[Result] | None = None  # where somebody waits for one
    loaded: Layout | None = None  # where its rows lie in the arena, once they do
    ready: Any = ()  # where the caller's GPU streams stood; another thread waits for that


class _StepFuture(Future[Result]):
    """A Future that raises in a forked child, where nobody would ever complete it."""

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the step; see `concurrent.futures.Future.result`."""
        _fork.check(self._pid, "step")
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the step; see `concurrent.futures.Future.exception`."""
        _fork.check(self._pid, "step")
        return super().exception(timeout)


class Session:
    """Steps with the same settings, and what is remembered between them: bandwidths, warm starts, the step count.

    Made by `Sidecar.session`. The rows of a step lie in memory that the sidecar sees, too; that memory, with the
    session's state in it, belongs to this process. So a sidecar that dies is replaced and the step repeated, with the
    same bits as if nothing had happened. Threads may share a session: its steps run one after the other, in the order
    of the calls.
    """

    def __init__(
        self, sidecar: Sidecar, host: _Host, settings: dict[str, Any], timeout: float, max_restarts: int
    ) -> None:
        """Open a session; use `Sidecar.session`."""
        self._closed = True
        self._sidecar = sidecar  # keeps it alive
        self._host = host
        self._pid = os.getpid()
        self._request = _to_json(settings)
        features = settings.get("num_features") or _DEFAULT_NUM_FEATURES
        self._num_features = features if isinstance(features, int) and 0 < features <= 1 << 20 else 0
        self._timeout = timeout
        self._max_restarts = max_restarts
        self._cond = threading.Condition()  # its lock is reentrant
        self._queue: deque[_Job] = deque()
        self._busy = False  # the arena holds the rows of a step that is not done
        self._worker: threading.Thread | None = None
        self._left_behind = False
        # What follows belongs to whoever made _busy true.
        self._seq = 0  # steps done
        self._connection: Connection | None = None  # where the session is open, with the present arena
        self._id = ""
        self._layout: Layout | None = None  # of the last step, if it fits the present arena
        self._said: tuple[str, Layout, bool, bytes] | None = None  # the last request but for its number
        self._settings: dict[str, Any] = {}
        slot = self._state_size(0, 0)
        self._arena = Arena(2 * slot, slot)
        self._closed = False
        self._retry(lambda _: None, timeout, "OpenSession")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings with the defaults filled in, as the sidecar understood them."""
        return dict(self._settings)

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return self._seq

    def step(
        self, student: Any, reference: Any, out: Any = None, *, grad: bool = True, timeout: float | None = None
    ) -> Result:
        """Compute the penalty of one minibatch and its gradient.

        Args:
            student: (n, d1) rows of the embedding that is trained; a NumPy array or a torch tensor on any device, of
                float16, bfloat16, float32 or float64, of any strides.
            reference: (n, d2) rows of the same samples in the other embedding; likewise.
            out: (n, d1), any of the float types; the gradient is written there instead of into a new array of the
                student's type. Small gradients underflow in float16: give a float32 `out` where that matters.
            grad: False computes the value only.
            timeout: seconds; None for the sidecar's.

        Raises:
            InputError: shapes, types or values that cannot be; the message names the row.
            StepTimeoutError: it took too long. The step counts as never taken.
            SidecarError: the sidecar failed, or died and could not be replaced.
        """
        return self.take(self.job(student, reference, out, grad, timeout))

    def take(self, job: _Job) -> Result:
        """Take the step of a job; see `step`."""
        owned = False
        try:
            with self._cond:
                self._check_open()
                if not self._busy and not self._queue:
                    owned = self._busy = True
                else:
                    self._enqueue(job)
            return self._run(job) if job.future is None else job.future.result()
        finally:  # Ctrl-C included, which may come anywhere
            self._give_back(job, owned)

    def submit(
        self, student: Any, reference: Any, out: Any = None, *, grad: bool = True, timeout: float | None = None
    ) -> Future[Result]:
        """Start a step and return at once; it runs while the caller does something else.

        The rows are copied before `submit` returns: the caller may overwrite them. `out` is written later, before the
        future is done. Several steps may be on their way; they run in the order of the calls.

        Args and errors as for `step`; errors of shape and type are raised here, the others by the future.
        """
        return self.start(self.job(student, reference, out, grad, timeout))

    def start(self, job: _Job) -> Future[Result]:
        """Start the step of a job; see `submit`."""
        owned = False
        try:
            with self._cond:
                self._check_open()
                if not self._busy and not self._queue:
                    owned = self._busy = True
            if owned:
                job.loaded = self._load(job)
            else:  # the arena is in use: the rows wait in memory of their own
                _memory.check(job.student.nbytes + job.reference.nbytes, "the rows of a step that waits")
                job.student, job.reference = job.student.copied(), job.reference.copied()
            with self._cond:
                if not owned:
                    self._check_open()
                return self._enqueue(job)
        except BaseException:
            self._give_back(job, owned)
            raise

    def state(self) -> bytes:
        """Return what the session remembers, for `restore` in this process or another one; a running step is awaited.

        It is some kilobytes: bandwidths, warm starts, the number of steps. What it holds is the sidecar's affair.
        """
        with self._held():
            slots = self._arena.memory[: 2 * self._arena.slot_size].tobytes()
            return _STATE.pack(_STATE_MAGIC, self._seq, self._arena.slot_size) + slots

    def restore(self, state: bytes) -> None:
        """Go on where the session stood whose `state` this is; before the first step only.

        Raises:
            InputError: it is no state, is damaged, or belongs to other settings; the session stays as it was.
            SidecarError: the sidecar died and could not be replaced.
        """
        if not isinstance(state, (bytes, bytearray, memoryview)):
            raise InputError(f"specalign: state is {_checks.brief(state)}; give the bytes that `state` returned")
        if len(state) < _STATE.size:
            raise InputError("specalign: the session's state is cut off")
        magic, seq, slot = _STATE.unpack_from(state)
        if magic != _STATE_MAGIC or len(state) != _STATE.size + 2 * slot or slot % 64 or seq >= 1 << 63:
            raise InputError("specalign: this is no state of a session, or it is damaged")
        with self._held():
            if self._seq:
                raise InputError(
                    f"specalign: a session's state is restored before its first step, not after {self._seq}"
                )
            if seq == 0:
                return
            arena = Arena(max(2 * slot, self._arena.size), max(slot, self._arena.slot_size))
            source = np.frombuffer(state, np.uint8, 2 * slot, _STATE.size)
            for i in range(2):
                arena.memory[i * arena.slot_size : i * arena.slot_size + slot] = source[i * slot : (i + 1) * slot]
            cold, self._arena, self._layout, self._connection = self._arena, arena, None, None
            self._seq = seq
            try:
                self._retry(lambda _: None, self._timeout, "OpenSession")
            except Error as e:
                self._arena, self._seq, self._connection = cold, 0, None
                arena.close()
                if isinstance(e, SidecarError) and e.stderr:
                    raise
                raise InputError(f"specalign: the session's state cannot be used: {e}") from None
            cold.close()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Keep steps away while the block lasts."""
        _fork.check(self._pid, "session")
        with self._cond:
            self._check_open()
            self._cond.wait_for(lambda: not self._busy and not self._queue)
            self._check_open()
            self._busy = True
        try:
            yield
        finally:
            self._release()

    def close(self) -> None:
        """Close the session: the step under way is waited for, those behind it raise `ClosedError`. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._cond:
            if self._closed:
                return
            self._closed = True
            waiting = [job for job in self._queue if job.loaded is None]
            for job in waiting:
                self._queue.remove(job)
            self._cond.notify_all()
        for job in waiting:
            assert job.future is not None
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ClosedError("specalign: the session was closed before this step"))
        with self._cond:
            done = self._cond.wait_for(lambda: not self._busy, _CLOSE_TIMEOUT)
            self._left_behind = not done  # by the step that still uses the arena, which closes it at its end
        connection = self._connection
        if connection is not None and connection is self._host.connection:
            connection.close_session(self._id, _CALL_TIMEOUT)
        if done:
            self._arena.close()

    def job(self, student: Any, reference: Any, out: Any, grad: bool, timeout: float | None = None) -> _Job:
        """Return a step to take or to start. Raises `InputError` for shapes and types that cannot be."""
        _fork.check(self._pid, "session")
        rows1, rows2 = Rows.of(student, "student"), Rows.of(reference, "reference")
        if rows1.rows != rows2.rows:
            raise InputError(
                f"specalign: student has {rows1.rows} rows, reference {rows2.rows}; both need the same samples"
            )
        check_out(out, rows1)
        self._check_size(rows1, rows2)
        wait = self._timeout if timeout is None else _checks.seconds(timeout, "timeout")
        return _Job(rows1, rows2, grad, out, wait)

    def _check_size(self, student: Rows, reference: Rows) -> None:
        """Raise `InputError` for rows that no step here can take, before anything is allocated for them."""
        for name, given in (("student", student), ("reference", reference)):
            if given.rows < 1 or given.cols < 1:
                raise InputError(
                    f"specalign: {name} has {given.rows} rows of {given.cols} columns; give at least one of each"
                )
        if student.rows > MAX_ROWS or max(student.cols, reference.cols) > MAX_COLS:
            raise InputError(
                f"specalign: {student.rows} rows of {student.cols} and {reference.cols} columns; "
                f"give at most {MAX_ROWS} rows a step, of at most {MAX_COLS} columns"
            )
        arena = self._layout_of(student, reference).size
        if arena <= self._arena.size:
            return
        needed, total = arena + 4 * student.rows * student.cols, _memory.total()  # and the gradient that is returned
        if needed > total:
            raise InputError(
                f"specalign: {student.rows} rows of {student.cols} and {reference.cols} columns need "
                f"{needed / 2**30:.1f} GiB, and steps may take {total / 2**30:.1f} GiB here; give fewer rows a step"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("specalign: the session is closed")

    # The queue.

    def _enqueue(self, job: _Job) -> Future[Result]:
        """Queue a job, at the front where its rows are in the arena already. The caller holds the lock."""
        if job.want_gradient:
            job.out = on_gpu(job.student, job.out)
        job.ready = moments(job.student.source, job.reference.source, job.out)
        future = job.future = _StepFuture()
        if job.loaded is None:
            self._queue.append(job)
        else:
            self._queue.appendleft(job)
        self._start_worker()
        self._cond.notify_all()
        return future

    def _start_worker(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="specalign-steps", daemon=True)
            self._worker.start()

    def _release(self) -> None:
        with self._cond:
            self._busy = False
            if self._left_behind:
                self._arena.close()
            self._cond.notify_all()

    def _give_back(self, job: _Job, owned: bool) -> None:
        """End the part of the caller's thread in a job: take it back if it still waits, and release what is owned."""
        with self._cond:
            if job in self._queue:
                self._queue.remove(job)
                assert job.future is not None
                job.future.cancel()
            elif job.future is not None:
                return  # done, or under way in the worker, which releases
            if owned:
                self._release()

    def _work(self) -> None:
        """Run the queued jobs. A thread that waits for more keeps its session alive, so it does not wait for long."""
        while True:
            with self._cond:
                idle = not self._cond.wait_for(
                    lambda: self._queue and (self._queue[0].loaded is not None or not self._busy), _IDLE
                )
                if idle:
                    if self._busy or self._queue:
                        continue
                    self._worker = None
                    return
                job = self._queue.popleft()
                self._busy = True
            try:
                assert job.future is not None
                if job.future.set_running_or_notify_cancel():
                    try:
                        wait_for(job.ready)
                        result = self._run(job)
                    except BaseException as e:
                        job.future.set_exception(e)
                    else:
                        job.future.set_result(result)
            finally:
                self._release()

    # What follows runs with _busy, and so alone.

    def _load(self, job: _Job) -> Layout:
        """Put a job's rows into the arena, a larger one if need be."""
        layout = self._layout
        shape = Shape(job.student.rows, job.student.cols, job.reference.cols, job.student.dtype, job.reference.dtype)
        if layout is None or layout.shape != shape:
            needed = self._layout_of(job.student, job.reference)
            if needed.slot_size > self._arena.slot_size or needed.size > self._arena.size:
                self._replace_arena(needed.size, needed.slot_size)
            layout = Layout.of(shape, self._arena.slot_size)
            if layout.size > self._arena.size:
                self._replace_arena(layout.size, layout.slot_size)
            self._layout = layout
        job.student.load(self._arena, layout.student)
        job.reference.load(self._arena, layout.reference)
        return layout

    def _layout_of(self, student: Rows, reference: Rows) -> Layout:
        """Return the least layout for a step with such rows."""
        shape = Shape(student.rows, student.cols, reference.cols, student.dtype, reference.dtype)
        return Layout.of(shape, self._state_size(shape.student_cols, shape.reference_cols))

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
        self._arena, self._layout = arena, None
        connection, self._connection = self._connection, None
        if connection is not None and connection is self._host.connection:
            connection.close_session(self._id, _CALL_TIMEOUT)
        old.close()

    def _run(self, job: _Job) -> Result:
        layout = job.loaded or self._load(job)
        seq = self._seq + 1

        def step(connection: Connection) -> Any:
            return connection.step(self._step_request(layout, job.want_gradient, seq), seq, job.timeout)

        try:
            reply, restarts = self._retry(step, job.timeout, f"step {seq}")
        except (InputError, SidecarError):
            raise
        except BaseException as e:
            # A time-out or Ctrl-C: the sidecar may still be writing there. It keeps the old memory, we take new one.
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.forget_session(self._id, _CALL_TIMEOUT)
            with contextlib.suppress(Error):
                self._replace_arena(self._arena.size, self._arena.slot_size)
            if isinstance(e, StepTimeoutError) and self._host.end_if_hung():
                raise StepTimeoutError(
                    f"{e}, and the sidecar answers nothing else, either: the next step takes another"
                ) from None
            raise
        self._seq = seq
        grad = gradient(self._arena, layout.gradient, job.student, job.out) if job.want_gradient else None
        return Result.of(reply, grad, restarts)

    def _step_request(self, layout: Layout, want_gradient: bool, seq: int) -> bytes:
        """Return the message that asks for step `seq`; from step to step only that number changes."""
        said = self._said
        if said is None or said[0] != self._id or said[1] is not layout or said[2] != want_gradient:
            shape = layout.shape
            request = StepRequest(
                session=self._id,
                rows=shape.rows,
                student=Region(layout.student, shape.student_cols, shape.student_dtype),
                reference=Region(layout.reference, shape.reference_cols, shape.reference_dtype),
                gradient_offset=layout.gradient,
                no_gradient=not want_gradient,
            )
            said = self._said = self._id, layout, want_gradient, request.encode()
        return StepRequest.numbered(said[3], seq)

    def _retry(self, call: Any, timeout: float, what: str) -> tuple[Any, int]:
        """Run `call(connection)` with the session open there, replacing dead sidecars. Returns its value too."""
        restarts = 0
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
                    error = self._host.drop(connection, f"{what}: {e}")
            except SidecarError as e:
                if connection is not None:  # it lives, and says that it failed
                    raise
                error, cure = e, "trying again"
            self._check_open_still()
            restarts += 1
            if restarts > self._max_restarts:
                raise error
            _log.warning("%s; %s (%d of %d)", str(error).splitlines()[0], cure, restarts, self._max_restarts)
            if restarts > 1:
                time.sleep(min(_BACKOFF * 2 ** (restarts - 2), _MAX_BACKOFF))

    def _check_open_still(self) -> None:
        if self._closed:
            raise ClosedError("specalign: the session was closed during a step")

    def _open(self, connection: Connection, timeout: float) -> None:
        """Open the session, or go on with it, in the sidecar behind a connection."""
        self._check_open_still()
        while self._host.orphans:
            owner, orphan = self._host.orphans.popleft()
            if owner is connection:
                connection.forget_session(orphan, _CALL_TIMEOUT)
        arena = self._arena
        reply = connection.open_session(
            OpenSessionRequest(
                protocol_major=PROTOCOL_MAJOR,
                settings_json=self._request,
                arena_fd=arena.fd,
                arena_size=arena.size,
                state_offset=0,
                state_slot_size=arena.slot_size,
                resume_seq=self._seq,
            ),
            max(timeout, _OPEN_TIMEOUT),
        )
        self._connection, self._id = connection, reply.session
        try:
            self._settings = json.loads(reply.settings_json)
        except ValueError as e:
            raise SidecarError(f"specalign: the sidecar's settings cannot be read: {e}") from None

    def __del__(self) -> None:
        """Leave word that the session can be closed: no calls from a destructor."""
        if not getattr(self, "_closed", True) and self._connection is not None:
            self._host.orphans.append((self._connection, self._id))

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> Any:
        """Refuse: a session cannot be pickled."""
        raise _fork.not_picklable("session")

    def __repr__(self) -> str:
        """Show the settings that differ from nothing, and the steps done."""
        state = "closed" if self._closed else f"{self._seq} steps"
        return f"<specalign.Session {self._request}, {state}>"


def _to_json(settings: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, (np.integer, np.floating, np.bool_)):
            return value.item()
        raise InputError(f"specalign: settings cannot hold {_checks.brief(value)}")

    try:
        text = json.dumps(settings, default=plain, allow_nan=False)
    except InputError:
        raise
    except (TypeError, ValueError) as e:
        raise InputError(f"specalign: settings: {e}") from None
    except RecursionError:
        raise InputError("specalign: settings: they are nested too deeply") from None
    if len(text) > _MOST_SETTINGS:
        raise InputError(f"specalign: settings of {len(text)} characters; at most {_MOST_SETTINGS} are read")
    return text
