"""The sidecar as its user sees it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TextIO

from . import _binary, _checks, _fork
from ._attach import find_daemon
from ._calm import uninterrupted
from ._connection import Connection, Lost
from ._errors import Error, InputError, SidecarError
from ._host import Host
from ._inprocess import InProcess, InProcessStepper
from ._messages import HelloReply, StatusReply
from ._process import Cancel, Process
from ._session import Session
from ._stepper import Stepper
from ._version import __version__

_CLIENT = f"python {__version__}"


class Sidecar:
    """A sidecar: a process of its own that computes penalties and gradients, or the same in this one.

    ::

        with specalign.Sidecar() as sidecar:
            session = sidecar.session(objective="ky_fan", k=30)
            result = session.step(student, reference)

    It belongs to the process that made it. In a forked child, such as a DataLoader's worker, every use raises
    `ProcessError`, and nothing that the child does touches the parent's. It cannot be pickled. It ends with `close`,
    with the `with` block, when nobody holds it or its sessions any more, and with the process, however that ends.
    Threads may share it.
    """

    def __init__(
        self,
        device: str = "auto",
        threads: int | None = None,
        *,
        binary: str | os.PathLike[str] | None = None,
        log: str | os.PathLike[str] | TextIO | None = None,
        timeout: float = 120.0,
        launch_timeout: float = 30.0,
        max_restarts: int = 5,
        isolation: str = "process",
    ) -> None:
        """Launch a sidecar and wait until it answers.

        Args:
            device: `auto`, `cpu`, `cuda` or `cuda:N`; the default of its sessions.
            threads: most threads of the engine; None: half of the CPUs, 1 to 16. The default of its sessions.
            binary: the program; by default `$SPECALIGN_BINARY`, the one in this package, or the one on `PATH`.
            log: a file to append the sidecar's log to, or an open text stream; by default its lines go to Python's
                logger `specalign.sidecar`.
            timeout: seconds that a step may take, unless `step` says otherwise.
            launch_timeout: seconds that the start may take.
            max_restarts: how often in a row a dead sidecar is replaced before `SidecarError` is raised.
            isolation: `process`, or `none`: the same kernels in this process, by the library beside the program. That
                saves the way to another process, and a fault in a kernel ends this one. Nothing is launched then;
                `launch_timeout` and `max_restarts` mean nothing.

        Raises:
            InputError: an argument that cannot be.
            SidecarError: the program or the library is missing, or the program ended before it was ready.
            ProtocolError: the program is of another protocol version, or no sidecar.
        """
        sink = _sink(log)
        launch_timeout = _checks.seconds(launch_timeout, "launch_timeout")
        program = None if binary is None else _checks.path(binary, "binary")
        defaults = {"device": device} if threads is None else {"device": device, "threads": threads}
        if _checks.isolation(isolation) == "none":
            self._begin(lambda: InProcess(program, sink, device), defaults, timeout, max_restarts)
            return

        def launch(cancel: Cancel) -> tuple[Connection, Process | None]:
            process = Process(_binary.find(program), ["serve"], _CLIENT, sink, launch_timeout, cancel)
            assert process.connection is not None
            return process.connection, process

        self._begin(lambda: Host(launch), defaults, timeout, max_restarts)

    @classmethod
    def attach(
        cls,
        file: str | os.PathLike[str],
        *,
        timeout: float = 120.0,
        connect_timeout: float = 10.0,
        max_restarts: int = 5,
    ) -> Sidecar:
        """Join the daemon that `specalign serve --daemon --attach FILE` left the attach file of.

        `close` leaves the daemon running. If it dies and another one writes the same file, steps go on there.

        Raises:
            InputError: an argument that cannot be.
            SidecarError: the file is not there or cannot be read, or the daemon does not answer.
            ProtocolError: the daemon is of another protocol version.
        """
        path = _checks.path(file, "file")
        connect_timeout = _checks.seconds(connect_timeout, "connect_timeout")

        def join(_: Cancel) -> tuple[Connection, Process | None]:
            connection = Connection(find_daemon(path, connect_timeout), _CLIENT)
            try:
                connection.greet(connect_timeout)
            except Lost as e:
                connection.close()
                raise SidecarError(f"specalign: no daemon answers at {connection.address} ({path}): {e}") from None
            except Error:
                connection.close()
                raise
            return connection, None

        self = cls.__new__(cls)
        self._begin(lambda: Host(join), {}, timeout, max_restarts)
        return self

    def _begin(
        self, host: Callable[[], Host | InProcess], defaults: dict[str, Any], timeout: float, max_restarts: int
    ) -> None:
        _fork.check_new()
        self._timeout = _checks.seconds(timeout, "timeout")
        self._max_restarts = _checks.whole(max_restarts, "max_restarts", 0)
        self._defaults = defaults
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._host = host()
        # Runs when nobody holds the sidecar any more, and at the end of the interpreter.
        self._finalizer = weakref.finalize(self, self._host.close)
        if isinstance(self._host, Host):
            _fork.register(self._host)
        try:
            self._host.get()
        except BaseException:
            uninterrupted(self._finalizer)
            raise

    def _check_process(self) -> None:
        _fork.check(self._host.pid, "sidecar")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._host.closed

    @property
    def hello(self) -> HelloReply:
        """Who answers: `pid`, `version`, `device`, `device_note`, `isa`, `threads`, protocol version."""
        self._check_process()
        return self._host.hello()

    @property
    def pid(self) -> int:
        """The process number of the sidecar, another one after a restart; this process's own without isolation."""
        return self.hello.pid

    def status(self, timeout: float = 10.0) -> StatusReply:
        """Ask what runs there: sessions, steps, failed steps, seconds, and `hello`. Raises `SidecarError`."""
        self._check_process()
        timeout = _checks.seconds(timeout, "timeout")
        return self._host.status(timeout)

    def session(self, **settings: Any) -> Session:
        """Open a session: settings, and what the sidecar remembers from step to step.

        Args:
            **settings: `kernel`, `sigma`, `objective`, `k`, `p`, `temperature`, `terms` (a list of dictionaries),
                `solver`, `tolerance`, `center`, `eta`, `fast` and the others of the documentation; None means the
                default.

        Raises:
            InputError: a setting that does not exist, or has a value that cannot be.
        """
        self._check_process()
        given = {k: v for k, v in settings.items() if v is not None}
        settings = {**self._defaults, **given}
        host = self._host
        stepper: Stepper | InProcessStepper
        if isinstance(host, Host):
            stepper = Stepper(host, settings, self._timeout, self._max_restarts)
        else:  # the library waits for the step of another session
            stepper = uninterrupted(lambda: InProcessStepper(host, settings))
        session = Session(self, stepper, self._timeout)
        self._sessions.add(session)
        return session

    def close(self) -> None:
        """Close the sessions and end a launched sidecar. A second call does nothing, nor does one in a fork."""
        if self._host.pid != os.getpid():
            return
        try:
            if not self._host.closed:
                for session in list(self._sessions):
                    session.close()
        finally:
            uninterrupted(self._finalizer)

    def __enter__(self) -> Sidecar:
        """Return the sidecar."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> Any:
        """Refuse: a process cannot be pickled."""
        raise _fork.not_picklable("sidecar")

    def __repr__(self) -> str:
        """Show what runs where."""
        if self._host.closed:
            return "<specalign.Sidecar, closed>"
        h = self._host.hello()
        where = f"pid {h.pid}" if isinstance(self._host, Host) else "in this process"
        return f"<specalign.Sidecar {h.version}, {where}, {h.device} ({h.isa})>"


def _sink(log: str | os.PathLike[str] | TextIO | None) -> Callable[[str], None] | None:
    if log is None:
        return None
    if isinstance(log, (str, bytes, os.PathLike)):
        # Opened for every line, so that nothing is left open and the file can be rotated; logs are sparse. A pipe that
        # nobody reads is an error, where a blocking open would wait for ever.
        path = _checks.path(log, "log")

        def opener(name: str, flags: int) -> int:
            return os.open(name, flags | os.O_NONBLOCK, 0o666)

        try:
            with open(path, "a", opener=opener):
                pass
        except OSError as e:
            raise InputError(f"specalign: the log {path} cannot be written to: {e.strerror}") from None

        def append(line: str) -> None:
            with open(path, "a", opener=opener) as f:
                f.write(line + "\n")

        return append
    if not callable(getattr(log, "write", None)) or not callable(getattr(log, "flush", None)):
        raise InputError(f"specalign: log is {_checks.brief(log)}; give the path of a file, or an open text stream")
    stream = log

    def write(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return write
