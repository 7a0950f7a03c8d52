"""The steps of `specalign compare` over shards, for programs that share the work over processes and machines.

::

    import specalign.shards as steps

    plan = open("plan", "rb").read()                                  # of `specalign shards plan`
    a = steps.partial(plan, [(0, student_rows_0, reference_rows_0)])  # first pass, anywhere
    b = steps.partial(plan, [(1, student_rows_1, reference_rows_1)])
    moments = steps.merge([a, b])                                     # any number, any order: the same bits
    directions = steps.spectrum(plan, moments)
    scores = steps.merge([steps.top(plan, directions, [shard]) for shard in shards])

All that goes from step to step is bytes, those of the files of `specalign shards`, whose step `result` prints what
compare prints. A shard that is missing, counted twice, changed or not what the plan says raises `InputError` that names
it. The work is done by a C library that lies beside the program `specalign`; it releases the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _library
from ._errors import Error, InputError

__all__ = ["merge", "names", "partial", "spectrum", "top"]

Rows = NDArray[Any]
Shard = tuple[int, Rows, Rows]  # its number in the plan, the student's rows, the reference's

_INPUT_ERROR = 2
_TYPES = {"float32": 1, "float16": 2, "bfloat16": 3, "float64": 4}
_PREAMBLE = struct.Struct("<8sIIQQ")


class _Rows(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("type", ctypes.c_int32),
    )


class _Shard(ctypes.Structure):
    _fields_ = (("student", _Rows), ("reference", _Rows), ("shard", ctypes.c_int64))


def partial(plan: bytes, shards: Iterable[Shard], threads: int = 0) -> bytes:
    """Return the moments of some shards: the first pass. With `threads` 0, by half of the CPUs."""
    given = _given(shards)
    return _call("partial", _file("the plan", plan), given, ctypes.c_int64(len(given)), ctypes.c_int32(threads))


def top(plan: bytes, directions: bytes, shards: Iterable[Shard], threads: int = 0) -> bytes:
    """Return the scores of some shards: the second pass. Their rows must be those that the first pass saw."""
    given = _given(shards)
    files = _file("the plan", plan), _file("the directions", directions)
    return _call("top", *files, given, ctypes.c_int64(len(given)), ctypes.c_int32(threads))


def merge(files: Sequence[bytes]) -> bytes:
    """Return the moments, or the scores, of what all of these cover. A shard in two of them is an error."""
    array = (_library.File * len(files))(*(_file(f"file {i}", data) for i, data in enumerate(files)))
    return _call("merge", array, ctypes.c_int64(len(files)))


def spectrum(plan: bytes, moments: bytes) -> bytes:
    """Return the directions, from the moments of all shards."""
    return _call("spectrum", _file("the plan", plan), _file("the moments", moments))


def names(plan: bytes) -> list[tuple[str, str, int]]:
    """Return the plan's shards: the names of the student's and the reference's file, and the number of rows."""
    try:
        _, _, _, header, _ = _PREAMBLE.unpack_from(plan)
        listed = json.loads(plan[_PREAMBLE.size : _PREAMBLE.size + header])["shards"]
        return [(s["student"], s["reference"], s["rows"]) for s in listed]
    except (struct.error, ValueError, KeyError, TypeError):
        raise InputError("shards: these bytes are no plan of specalign shards") from None


def _file(name: str, data: bytes) -> _library.File:
    if not isinstance(data, bytes):
        raise InputError(f"shards: {name} is {type(data).__name__}; give bytes")
    return _library.File(name.encode(), data, len(data))


def _given(shards: Iterable[Shard]) -> ctypes.Array[_Shard]:
    given = list(shards)
    for i, _, _ in given:
        if not isinstance(i, int) or not 0 <= i < 1 << 63:
            raise InputError(f"shards: there is no shard {i!r}; give numbers from 0 on")
    array = (_Shard * len(given))(*(_Shard(_rows(a, i), _rows(b, i), i) for i, a, b in given))
    array.keep = given  # type: ignore[attr-defined]  # the structures have only addresses
    return array


def _rows(rows: Rows, shard: int) -> _Rows:
    if not isinstance(rows, np.ndarray):
        raise InputError(f"shards: the rows of shard {shard} are {type(rows).__name__}; give a NumPy array")
    kind = _TYPES.get(rows.dtype.name)
    if rows.ndim != 2 or kind is None or not rows.dtype.isnative or not rows.flags.c_contiguous:
        raise InputError(
            f"shards: the rows of shard {shard} are {rows.dtype.name} of shape {rows.shape}; give a C-contiguous "
            f"matrix of {', '.join(_TYPES)}"
        )
    return _Rows(rows.ctypes.data, rows.shape[0], rows.shape[1], kind)


def _call(step: str, *arguments: Any) -> bytes:
    library = _library.load()
    function: Callable[..., int] = getattr(library, f"specalign_shards_{step}")
    out = _library.Buffer()
    status = function(*arguments, ctypes.byref(out))
    said = _library.taken(library, out)
    if status:
        raise (InputError if status == _INPUT_ERROR else Error)(said.decode(errors="replace"))
    return said
