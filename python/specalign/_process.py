"""Launching the sidecar as go-plugin's host does, and ending it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable

from ._connection import PROTOCOL_MAJOR, Connection, Lost
from ._errors import Error, ProtocolError, SidecarError
from ._socketdir import SocketDir

COOKIE_KEY = "SPECALIGN_PLUGIN"
COOKIE_VALUE = "1"

_TAIL_LINES, _LINE_BYTES = 20, 2000
_HANDSHAKE_BYTES = 1 << 16
_GRACE = 2.0  # seconds between Shutdown, SIGTERM and SIGKILL

_log = logging.getLogger("specalign.sidecar")
_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
}
_LEVEL = re.compile(r"\[(TRACE|DEBUG|INFO|WARN|ERROR)\]")


class Lines:
    """The lines that a sidecar writes, of all its streams: keeps the last ones and passes every line on."""

    def __init__(self, sink: Callable[[str], None] | None) -> None:
        """Pass the lines to `sink`, or to the logger `specalign.sidecar` at the level that they name."""
        self._sink = sink or _to_logger
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._failed = False

    def take(self, line: bytes) -> None:
        """Take a line."""
        text = line[:_LINE_BYTES].decode(errors="replace").rstrip()
        if not text:
            return
        self._tail.append(text)
        try:
            self._sink(text)
        except Exception as e:  # the caller's sink must not stop the drain: the sidecar would hang on a full pipe
            if not self._failed:
                _log.warning("the sidecar's lines cannot be written to the log that was given: %s", e)
            self._failed = True

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, oldest first."""
        return tuple(self._tail)


class Stream:
    """Makes lines of the bytes of one stream. One thread at a time feeds it."""

    def __init__(self, lines: Lines) -> None:
        """Pass the lines to `lines`."""
        self._lines = lines
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what was read; lines may arrive in pieces."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > _LINE_BYTES:  # a line without an end must not fill the memory
            lines.append(rest)
            rest = b""
        self._rest = rest
        for line in lines:
            self._lines.take(line)

    def flush(self) -> None:
        """Take the last line, which may lack its end."""
        rest, self._rest = self._rest, b""
        if rest:
            self._lines.take(rest)


def _to_logger(text: str) -> None:
    level = logging.INFO
    if text.startswith("{"):
        with contextlib.suppress(ValueError):
            level = _LEVELS.get(str(json.loads(text).get("@level", "")).upper(), level)
    elif match := _LEVEL.search(text[:80]):
        level = _LEVELS[match[1]]
        text = text[match.end() :].lstrip()  # the logger says level and time
    _log.log(level, "%s", text)


class Cancel:
    """The wish of another thread that a launch should end."""

    def __init__(self) -> None:
        """Nobody wishes so yet."""
        self.asked = False
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def watch(self, child: subprocess.Popen[bytes]) -> None:
        """Have `child` killed if anybody asks, or did."""
        with self._lock:
            self._child = child
            if self.asked:
                child.kill()

    def ask(self) -> None:
        """End the launch: it fails, and removes what it made."""
        with self._lock:
            self.asked = True
            if self._child is not None:
                self._child.kill()


class Process:
    """A launched sidecar: the child process, its socket directory and the thread that drains its output."""

    def __init__(
        self,
        binary: str,
        arguments: list[str],
        client: str,
        sink: Callable[[str], None] | None,
        timeout: float,
        cancel: Cancel,
    ) -> None:
        """Launch `binary` and connect to it, within `timeout` seconds and unless `cancel` is asked for.

        Raises `SidecarError` or `ProtocolError`; then nothing is left behind. Not to be interrupted; see `_calm`.
        """
        self.connection: Connection | None = None
        self._lines = Lines(sink)
        self._out, self._err, self._stdio = (Stream(self._lines) for _ in range(3))
        self._drain: threading.Thread | None = None
        self._dir = SocketDir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PLUGIN_")}
        environment |= {
            COOKIE_KEY: COOKIE_VALUE,
            "PLUGIN_PROTOCOL_VERSIONS": str(PROTOCOL_MAJOR),
            "PLUGIN_UNIX_SOCKET_DIR": self._dir.path,
        }
        try:
            # A session of its own: Ctrl-C in the terminal is the trainer's to handle.
            self._child = subprocess.Popen(
                [binary, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as e:
            self._dir.remove()
            raise SidecarError(f"specalign: {binary} could not be started: {e.strerror}") from None
        self.pid = self._child.pid
        cancel.watch(self._child)
        try:
            self._connect(client, time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise

    def _connect(self, client: str, deadline: float) -> None:
        line, rest = self._handshake(deadline)
        self._drain = threading.Thread(target=self._run_drain, args=(rest,), name="specalign-drain", daemon=True)
        self._drain.start()
        connection = self.connection = Connection(_parse_handshake(line), client)
        try:
            connection.check_health(max(0.1, deadline - time.monotonic()))
            connection.drain_stdio(self._stdio.feed)
            connection.greet(max(0.1, deadline - time.monotonic()))
        except Lost as e:
            raise self.died(f"specalign: the sidecar does not answer after its start: {e}") from None
        except Error as e:
            if isinstance(e, ProtocolError):
                raise
            raise self.died(f"specalign: the sidecar does not answer after its start: {e}") from None

    def _handshake(self, deadline: float) -> tuple[str, bytes]:
        """Read go-plugin's first line, draining stderr meanwhile. Returns it and what came behind it."""
        child, data = self._child, b""
        assert child.stdout is not None
        assert child.stderr is not None
        out, err = child.stdout.fileno(), child.stderr.fileno()
        poll = select.poll()
        poll.register(out, select.POLLIN)
        poll.register(err, select.POLLIN)
        while b"\n" not in data:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.died("specalign: the sidecar did not say within its launch time-out where it listens")
            for fd, _ in poll.poll(left * 1000):
                piece = os.read(fd, 1 << 16)
                if fd == err:
                    self._err.feed(piece)
                    if not piece:
                        poll.unregister(err)
                elif not piece:
                    raise self.died("specalign: the sidecar ended before it was ready")
                else:
                    data += piece
            if len(data) > _HANDSHAKE_BYTES:
                raise self.died("specalign: the program's first output is no handshake of a sidecar")
        line, _, rest = data.partition(b"\n")
        return line.decode(errors="replace").strip(), rest

    def _run_drain(self, rest: bytes) -> None:
        child = self._child
        assert child.stdout is not None
        assert child.stderr is not None
        self._out.feed(rest)
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ, self._out)
            selector.register(child.stderr, selectors.EVENT_READ, self._err)
            while selector.get_map():
                for key, _ in selector.select():
                    piece = os.read(key.fd, 1 << 16)
                    if piece:
                        key.data.feed(piece)
                    else:
                        key.data.flush()
                        selector.unregister(key.fileobj)

    def died(self, what: str) -> SidecarError:
        """Return the error for a sidecar that ended, or is ended here: how it ended, and its last words."""
        try:
            code = self._child.wait(0.5)
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        except subprocess.TimeoutExpired:
            how = "it is still running"
        if self._drain is not None:
            self._drain.join(0.5)
        elif self._child.stderr is not None and self._child.poll() is not None:
            self._err.feed(self._child.stderr.read() or b"")
            self._err.flush()
        return SidecarError(f"{what} ({how})", self._lines.tail())

    def kill(self) -> None:
        """End a process that does not listen any more; `stop` is for what it leaves."""
        self._child.kill()

    def stop(self) -> None:
        """End the process (Shutdown, then SIGTERM, then SIGKILL), reap it and remove its directory."""
        child, connection = self._child, self.connection
        if connection is not None:
            if child.poll() is None:
                connection.shutdown(_GRACE)
            connection.close()
        for end in (None, child.terminate, child.kill):
            if end is not None:
                end()
            elif connection is None:
                continue  # nothing asked it to end yet
            try:
                child.wait(_GRACE)
                break
            except subprocess.TimeoutExpired:
                continue
        if self._drain is not None:
            self._drain.join(_GRACE)
        if self._drain is None or not self._drain.is_alive():
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        self._dir.remove()


def _parse_handshake(line: str) -> str:
    """Return the socket's path out of `1|1|unix|/path|grpc|...`."""
    parts = line.split("|")
    if len(parts) < 5:
        raise ProtocolError(f"specalign: the program's first output is no handshake of a sidecar: {line[:200]!r}")
    core, version, network, address, protocol = parts[:5]
    if version != str(PROTOCOL_MAJOR):
        raise ProtocolError(
            f"specalign: the sidecar speaks protocol version {version}, this package version {PROTOCOL_MAJOR}; "
            "install the same release of both"
        )
    if (core, network, protocol) != ("1", "unix", "grpc"):
        raise ProtocolError(f"specalign: the sidecar's handshake is not understood: {line[:200]!r}")
    return address
