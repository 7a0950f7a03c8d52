"""The errors of the package. All derive from `Error`."""

from __future__ import annotations


class Error(Exception):
    """Base class of every error that this package raises on purpose."""


class InputError(Error, ValueError):
    """The caller's fault: a shape, a type, a value or a setting. The sidecar lives on and the session can go on."""


class StepTimeoutError(Error, TimeoutError):
    """A step took longer than its time-out. The session can go on: the step counts as never taken."""


class SidecarError(Error):
    """The sidecar could not be started, or died and could not be replaced.

    Attributes:
        stderr: the last lines that the sidecar wrote to its standard error, oldest first; they are part of the
            message, too.
    """

    def __init__(self, message: str, stderr: tuple[str, ...] = ()) -> None:
        self.stderr = stderr
        if stderr:
            tail = "\n".join("  " + line for line in stderr)
            message = f"{message}\nThe sidecar's last words:\n{tail}"
        super().__init__(message)


class ProtocolError(Error):
    """Client and sidecar do not speak the same version of the protocol, or what answered is not the sidecar."""


class WireError(ProtocolError):
    """A message from the sidecar is malformed."""


class ProcessError(Error, RuntimeError):
    """A sidecar or session was used in, or sent to, another process than the one that made it."""


class ClosedError(Error, RuntimeError):
    """A sidecar or session was used after it was closed."""
