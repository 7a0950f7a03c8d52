"""Work that Ctrl-C must not cut in two: starting a process, and ending one.

Python raises `KeyboardInterrupt`, and whatever else a signal handler raises, between any two instructions of the main
thread. Work that leaves something behind when it ends half-way is done in another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
_PATIENCE = 5.0  # seconds after an interrupt


def uninterrupted(work: Callable[[], T], interrupted: Callable[[], None] = lambda: None) -> T:
    """Return what `work()` returns or raise what it raises; nothing interrupts it.

    An interrupt of the caller is raised once the work is done. `interrupted` is called first: it may hurry the work.
    What takes too long all the same, or is interrupted again, goes on beside; the interpreter waits for it at its end.

    Not for destructors: they may run while this thread holds the locks that starting another one takes.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[T] = Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as e:
                future.set_exception(e)

    try:
        try:
            threading.Thread(target=run, name="specalign-calm", daemon=False).start()
        except RuntimeError:  # there are no new threads at the interpreter's end
            if not future.cancel():
                raise
            return work()
        return future.result()
    except BaseException:
        # An interrupt of `start` does not tell whether there is a thread: one that has not begun will do nothing.
        if not future.cancel() and not future.done():
            interrupted()
            wait([future], _PATIENCE)
        raise
