"""A session: one stream of steps with the same settings."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from . import _checks, _fork, _memory
from ._arrays import Rows, check_out, moments, on_gpu, wait_for
from ._calm import uninterrupted
from ._errors import ClosedError, InputError
from ._inprocess import InProcessStepper
from ._job import Job, StepFuture
from ._result import Result
from ._stepper import Stepper

if TYPE_CHECKING:
    from ._sidecar import Sidecar

_CLOSE_TIMEOUT = 5.0  # seconds for the step under way
_IDLE = 5.0  # after which the thread of `submit` ends
_POLL = 1e-3  # seconds between two looks at whether steps are done

_log = logging.getLogger("specalign")

T = TypeVar("T")


class Session:
    """Steps with the same settings, and what is remembered between them: bandwidths, warm starts, the step count.

    Made by `Sidecar.session`. The rows of a step lie in memory that the sidecar sees, too; that memory, with the
    session's state in it, belongs to this process. So a sidecar that dies is replaced and the step repeated, with the
    same bits as if nothing had happened. Threads may share a session: its steps run one after the other, in the order
    of the calls.

    With `Sidecar(isolation="none")` the rows of `step` are read where they lie, wherever that is possible.
    """

    def __init__(self, sidecar: Sidecar, stepper: Stepper | InProcessStepper, timeout: float) -> None:
        """Take the steps of `stepper`; use `Sidecar.session`."""
        self._sidecar = sidecar  # keeps it alive
        self._pid = os.getpid()
        self._timeout = timeout
        # A signal's handler may raise at the entrance of every function of Python's. `with` on the condition calls one
        # that would leave the lock held.
        self._lock = threading.RLock()
        self._cond = threading.Condition(self._lock)
        self._queue: deque[Job] = deque()
        self._busy = False  # the stepper is in use: its memory holds the rows of a step that is not done
        self._worker: threading.Thread | None = None
        self._taken: Future[Result] | None = None  # by the worker, until it is done
        self._left_behind = False
        self._stepper = stepper

    @property
    def settings(self) -> dict[str, Any]:
        """The settings with the defaults filled in, as the sidecar understood them."""
        return dict(self._stepper.settings)

    @property
    def memory_note(self) -> str:
        """Why rows on a GPU go, or would go, through host memory; empty where nothing has spoken against it."""
        return self._stepper.note

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return self._stepper.seq

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

    def take(self, job: Job) -> Result:
        """Take the step of a job; see `step`."""
        owned = False
        try:
            with self._lock:
                self._check_open()
                if not self._busy and not self._queue:
                    owned = self._busy = True
                else:
                    self._enqueue(job)
            return self._run(job) if job.future is None else self._await(job.future)
        finally:  # Ctrl-C included, which may come anywhere but before the first call
            if owned:
                self._busy = False
            self._give_back(job)

    def submit(
        self, student: Any, reference: Any, out: Any = None, *, grad: bool = True, timeout: float | None = None
    ) -> Future[Result]:
        """Start a step and return at once; it runs while the caller does something else.

        The rows are copied before `submit` returns: the caller may overwrite them. `out` is written later, before the
        future is done. Several steps may be on their way; they run in the order of the calls.

        Args and errors as for `step`; errors of shape and type are raised here, the others by the future.
        """
        return self.start(self.job(student, reference, out, grad, timeout))

    def start(self, job: Job) -> Future[Result]:
        """Start the step of a job; see `submit`."""
        owned = False
        try:
            with self._lock:
                self._check_open()
                if not self._busy and not self._queue:
                    owned = self._busy = True
            if owned:
                job.loaded = self._stepper.load(job.student, job.reference)
            else:  # the arena is in use: the rows wait in memory of their own
                _memory.check(job.student.nbytes + job.reference.nbytes, "the rows of a step that waits")
                job.student, job.reference = job.student.copied(), job.reference.copied()
            with self._lock:
                if not owned:
                    self._check_open()
                return self._enqueue(job)
        except BaseException:
            if owned and job.future is None:
                self._busy = False
            self._give_back(job)
            raise

    def state(self) -> bytes:
        """Return what the session remembers, for `restore` in this process or another one; a running step is awaited.

        It is some kilobytes: bandwidths, warm starts, the number of steps. What it holds is the sidecar's affair.
        """
        return self._between(self._stepper.state)

    def restore(self, state: bytes) -> None:
        """Go on where the session stood whose `state` this is; before the first step only.

        Raises:
            InputError: it is no state, is damaged, or belongs to other settings; the session stays as it was.
            SidecarError: the sidecar died and could not be replaced.
        """
        self._between(lambda: self._stepper.restore(state))

    def _between(self, work: Callable[[], T]) -> T:
        """Do work while no step is under way or waits."""
        _fork.check(self._pid, "session")
        owned = False
        try:
            while not owned:
                with self._lock:
                    self._check_open()
                    if not self._busy and not self._queue:
                        owned = self._busy = True
                if not owned and threading.current_thread() is self._worker:
                    self._next(_POLL)
                elif not owned:
                    time.sleep(_POLL)
            return work()
        finally:
            if owned:
                self._busy = False
            self._wake()

    def close(self) -> None:
        """Close the session: the step under way is waited for, those behind it raise `ClosedError`. Idempotent."""
        if self._pid == os.getpid() and not self._stepper.closed:
            uninterrupted(self._close)

    def _close(self) -> None:
        with self._lock:
            if self._stepper.closed:
                return
            self._stepper.closed = True
            waiting = [job for job in self._queue if job.loaded is None]
            for job in waiting:
                self._queue.remove(job)
            self._cond.notify_all()
        for job in waiting:
            assert job.future is not None
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ClosedError("specalign: the session was closed before this step"))
        with self._lock:
            done = self._cond.wait_for(lambda: not self._busy, _CLOSE_TIMEOUT)
            self._left_behind = not done  # by the step that still uses the arena, which closes it at its end
            taken = self._taken
        if done and taken is not None:  # its step is, and its result about to be told
            wait([taken], _CLOSE_TIMEOUT)
        self._stepper.leave()
        if done:
            self._stepper.end()

    def job(self, student: Any, reference: Any, out: Any, grad: bool, timeout: float | None = None) -> Job:
        """Return a step to take or to start. Raises `InputError` for shapes and types that cannot be."""
        _fork.check(self._pid, "session")
        rows1, rows2 = Rows.of(student, "student"), Rows.of(reference, "reference")
        if rows1.rows != rows2.rows:
            raise InputError(
                f"specalign: student has {rows1.rows} rows, reference {rows2.rows}; both need the same samples"
            )
        check_out(out, rows1)
        if grad and out is None and rows1.foreign:
            raise InputError("specalign: student is no torch tensor; give out, an array for the gradient")
        self._stepper.check(rows1, rows2)
        seconds = self._timeout if timeout is None else _checks.seconds(timeout, "timeout")
        return Job(rows1, rows2, grad, out, seconds)

    def _check_open(self) -> None:
        if self._stepper.closed:
            raise ClosedError("specalign: the session is closed")

    # The queue.

    def _enqueue(self, job: Job) -> Future[Result]:
        """Queue a job, at the front where its rows are in the arena already. The caller holds the lock."""
        if job.want_gradient:
            job.out = on_gpu(job.student, job.out)
        job.ready = moments(job.student.source, job.reference.source, job.out)
        future = job.future = StepFuture()
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

    def _await(self, future: Future[Result]) -> Result:
        """Wait for a queued step, which the worker takes itself: one that is asked for in a future's callback."""
        while threading.current_thread() is self._worker and not future.done():
            self._next(_IDLE)
        return future.result()

    def _run(self, job: Job) -> Result:
        """Take the step of a job. The caller has made _busy true."""
        return self._stepper.step(job)

    def _wake(self) -> None:
        """Tell whoever waits that the stepper is free."""
        with self._lock:
            if self._left_behind and not self._busy:
                self._left_behind = False
                self._stepper.end()
            self._cond.notify_all()

    def _give_back(self, job: Job) -> None:
        """End the part of the caller's thread in a job: take it back if it still waits."""
        with self._lock:
            if job in self._queue:
                self._queue.remove(job)
                if job.loaded is not None:
                    self._busy = False
                assert job.future is not None
                job.future.cancel()
            self._wake()

    def _work(self) -> None:
        """Run the queued jobs. A thread that waits for more keeps its session alive, so it does not wait for long."""
        while True:
            if not self._next(_IDLE):
                with self._lock:
                    if not self._busy and not self._queue:
                        self._worker = None
                        return

    def _next(self, patience: float) -> bool:
        """Run the next queued job, once there is one and the stepper is free. False: that took too many seconds."""
        with self._lock:
            if not self._cond.wait_for(
                lambda: self._queue and (self._queue[0].loaded is not None or not self._busy), patience
            ):
                return False
            job = self._queue.popleft()
            self._busy = True
            future = self._taken = job.future
        result, error = None, None
        assert future is not None
        try:
            if not future.set_running_or_notify_cancel():
                self._taken = None
                return True
            try:
                wait_for(job.ready)
                result = self._run(job)
            except BaseException as e:
                error = e
        finally:
            self._busy = False
            self._wake()
        try:  # the stepper is free: callbacks, which run in here, may take steps of their own
            if error is not None or result is None:
                future.set_exception(error)
            else:
                future.set_result(result)
        except BaseException as e:  # concurrent.futures lets SystemExit through, which must not end this thread
            _log.warning("specalign: a callback of a step's future raised %r", e)
        self._taken = None
        return True

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
        state = "closed" if self._stepper.closed else f"{self._stepper.seq} steps"
        return f"<specalign.Session {self._stepper.request}, {state}>"
