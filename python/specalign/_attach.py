"""The attach file by which a daemon is found: who wrote it, and who listens where it says."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from typing import Any

from ._connection import PROTOCOL_MAJOR
from ._errors import ProtocolError, SidecarError

_MOST_BYTES = 1 << 16


def find_daemon(path: str, timeout: float) -> str:
    """Return the path of the socket at which the daemon of an attach file listens.

    Raises `SidecarError` unless the file and the process that listens are this user's, and the process the one that the
    file names; `ProtocolError` for another protocol version.
    """
    content = _read(path)
    try:
        address, pid, major = str(content["socket"]), int(content["pid"]), content["protocol_major"]
    except (KeyError, TypeError, ValueError) as e:
        raise SidecarError(f"specalign: {path} is no attach file of a sidecar: {e!r}") from None
    if major != PROTOCOL_MAJOR:
        raise ProtocolError(
            f"specalign: the daemon of {path} (specalign {content.get('version')}) speaks protocol version {major}, "
            f"this package version {PROTOCOL_MAJOR}; install the same release of both"
        )
    if _ended(pid, content.get("start_time"), content.get("boot")):
        raise SidecarError(f"specalign: the daemon {pid} that {path} names has ended; start it again")
    listener, uid = _listener(path, address, timeout)
    if uid != os.geteuid():
        raise SidecarError(f"specalign: at {address} ({path}) a process of user {uid} listens; it is not talked to")
    if listener != pid:
        raise SidecarError(
            f"specalign: at {address} process {listener} listens, not the daemon {pid} that {path} names; "
            "start the daemon again"
        )
    return address


def _read(path: str) -> Any:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not be waited for
    except OSError as e:
        raise SidecarError(f"specalign: the attach file {path} cannot be read: {e.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # Python refuses to wrap a folder's descriptor, and then leaves it open
        os.close(fd)
        raise SidecarError(f"specalign: {path} is no file")
    with open(fd, "rb") as f:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise SidecarError(f"specalign: the attach file {path} is another user's ({status.st_uid})")
        if status.st_mode & 0o022:
            raise SidecarError(f"specalign: the attach file {path} may be written by others; start the daemon again")
        data = f.read(_MOST_BYTES)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as e:
        raise SidecarError(f"specalign: {path} is no attach file of a sidecar: {e!r}") from None


def _ended(pid: int, start_time: Any, boot: Any) -> bool:
    """Tell whether a process has ended, even if another one has its number now."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as f:
            if f.read().strip() != boot:
                return True
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[19] != str(start_time)  # field 22
    except OSError:
        return True


def _listener(path: str, address: str, timeout: float) -> tuple[int, int]:
    """Return process and user that listen at a socket, by the kernel's word."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout)
        try:
            s.connect(address)
            data = s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except (OSError, ValueError) as e:
            reason = getattr(e, "strerror", None) or e
            raise SidecarError(f"specalign: no daemon answers at {address} ({path}): {reason}") from None
    pid, uid, _ = struct.unpack("iII", data)
    return pid, uid
