"""Finding and loading libspecalign.so, the engine as a C library. Its functions release the interpreter's lock."""

from __future__ import annotations

import ctypes
import os
import subprocess

from . import _binary
from ._errors import ProcessError, SidecarError

_VERSIONS = {"shards": 1, "session": 2}  # of its interfaces, capi/*.h

GPU = "libspecalign-gpu.so"

_loaded: dict[str, ctypes.CDLL] = {}
_asked: dict[str, str] = {}  # by program, why there is no GPU
_user = 0  # the process that first loaded one: this one or, in a fork, an ancestor


class Buffer(ctypes.Structure):
    """`specalign_buffer`."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


class File(ctypes.Structure):
    """`specalign_file`."""

    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


def load(program: str | None = None, name: str = "libspecalign.so") -> ctypes.CDLL:
    """Return a library that lies beside the program, by default beside the one that a sidecar would be launched of.

    Raises `SidecarError` where it cannot be loaded, and `ProcessError` in a fork of a process that had loaded one:
    Go's threads are not there, and every call would wait for ever.
    """
    global _user
    if _loaded and _user != os.getpid():
        raise ProcessError(
            f"specalign: process {os.getpid()} is a fork of process {_user}, which has loaded libspecalign.so; it "
            "cannot be used here; start such workers with spawn or forkserver"
        )
    path = os.path.join(_folder(program), name)
    library = _loaded.get(path)
    if library is not None:
        return library
    try:
        library = ctypes.CDLL(path)
        versions = {name: getattr(library, f"specalign_{name}_version")() for name in _VERSIONS}
    except (OSError, AttributeError) as e:
        raise SidecarError(
            f"specalign: {name} cannot be loaded: {e}. It lies beside the program; install a wheel that has "
            "both, or run `make library` in the source tree"
        ) from None
    if versions != _VERSIONS:
        raise SidecarError(f"specalign: {path} has the interfaces {versions}, this package {_VERSIONS}")
    _user = os.getpid()
    _loaded[path] = library
    return library


def why_no_gpu(program: str | None) -> str:
    """Tell why the library with GPUs is not to be loaded; empty where it is.

    A process in which there is no GPU would be ended by it, so the program is asked, which has the words for why. Where
    there is nothing to ask for no process is started.
    """
    path = _binary.find(program)
    if not os.path.isfile(os.path.join(_folder(path), "specalign-gpu")):
        return "this build has no GPU support, and there is no specalign-gpu beside it"
    if path not in _asked:
        _asked[path] = _ask(path)
    if not _asked[path] and not os.path.isfile(os.path.join(_folder(path), GPU)):
        return f"there is no {GPU} beside specalign-gpu"
    return _asked[path]


def _ask(program: str) -> str:
    try:  # it gives specalign-gpu 20 s
        done = subprocess.run([program, "probe"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"{program} does not say whether there is a GPU: {e}"
    if done.returncode == 0:
        return ""
    return " ".join((done.stderr + " " + done.stdout).split()).removeprefix("specalign: ")


def _folder(program: str | None) -> str:
    return os.path.dirname(os.path.realpath(_binary.find(program)))


def taken(library: ctypes.CDLL, buffer: Buffer) -> bytes:
    """Return what the library made, and free it."""
    try:
        return ctypes.string_at(buffer.data, buffer.size)
    finally:
        library.specalign_shards_free(ctypes.byref(buffer))
