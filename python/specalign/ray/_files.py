"""Rows of shards, from local files or, through fsspec, from object storage."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError

Rows = NDArray[Any]

_NAME = re.compile(r"(?P<path>.*?(?P<kind>\.npy|\.npz|\.safetensors|\.parquet))(?::(?P<key>[^/]+))?")
_SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
_HEADER = 1 << 20  # bytes at either end of a file that are fetched to know its shape


def remote(name: str) -> bool:
    """Tell whether a name is one of object storage."""
    return "://" in name


def split(name: str) -> tuple[str, str, str]:
    """Take a name apart: path, kind, and key or ""."""
    match = _NAME.fullmatch(name)
    if not match:
        raise InputError(f"{name}: unknown kind of file; give .npy, .npz:KEY, .safetensors:KEY or .parquet:COLUMN")
    return match["path"], match["kind"], match["key"] or ""


def matching(patterns: Sequence[str]) -> list[str]:
    """Return the names that these stand for: local ones absolute, patterns of object storage by what matches."""
    names = []
    for pattern in patterns:
        if not remote(pattern):
            names.append(os.path.abspath(pattern))
            continue
        path, _, key = split(pattern)
        system, inside = _system(path)
        found = [inside]
        if re.search(r"[*?[]", inside):
            with _told(pattern):
                found = sorted(system.glob(inside))
            if not found:
                raise InputError(f"{pattern}: no file matches")
        names += [system.unstrip_protocol(f) + (key and f":{key}") for f in found]
    return names


def fetch(name: str, folder: str, whole: bool = True) -> None:
    """Copy a file of object storage to where its name, taken as a path, leads to from a folder.

    Not whole: only its ends, which say what shape its rows have, between holes.
    """
    path, _, _ = split(name)
    target = os.path.join(folder, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    system, inside = _system(path)
    with _told(name), system.open(inside, "rb") as source, open(target, "wb") as copy:
        if whole:
            shutil.copyfileobj(source, copy, 8 << 20)
            return
        size = source.seek(0, os.SEEK_END)
        for start in (0, max(0, size - _HEADER)):
            source.seek(start)
            copy.seek(start)
            copy.write(source.read(_HEADER))


@contextlib.contextmanager
def opened(pairs: Sequence[tuple[int, str, str]]) -> Iterator[list[tuple[int, Rows, Rows]]]:
    """Open shards, each by its number in the plan and the names of its two files. Local files are mapped."""
    with tempfile.TemporaryDirectory(prefix="specalign-ray-") as folder:
        given = []
        for shard, *sides in pairs:
            both = []
            for name in sides:
                path = name
                if remote(name):
                    fetch(name, folder)
                    path = os.path.join(folder, name)
                with _told(f"shard {shard} ({name})"):
                    both.append(load(path))
            given.append((shard, both[0], both[1]))
        yield given


def load(name: str) -> Rows:
    """Return the matrix of a local file, mapped where it lies there as it is."""
    path, kind, key = split(name)
    if kind == ".safetensors":
        rows = _safetensors(path, key)
    elif kind == ".parquet":
        rows = _parquet(path, key)
    elif kind == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            rows = archive[_only(archive.files, key)]
    else:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    if rows.dtype.kind == "f":
        rows = rows.astype(rows.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(rows)


def _safetensors(path: str, key: str) -> Rows:
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
    entry = header[_only([k for k in header if k != "__metadata__"], key)]
    kind = entry["dtype"]
    if kind not in _SAFETENSORS:
        raise ValueError(f"it holds {kind}, which is no type of rows")
    begin = 8 + length + entry["data_offsets"][0]
    rows: Rows = np.memmap(path, _SAFETENSORS[kind], "r", begin, tuple(entry["shape"]))
    return (rows.astype("<u4") << 16).view("<f4") if kind == "BF16" else rows


def _parquet(path: str, key: str) -> Rows:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(
            f"{path}: reading Parquet files on Ray takes pyarrow; pip install pyarrow on every node"
        ) from None
    name = _only(parquet.read_schema(path).names, key)
    column = parquet.read_table(path, columns=[name])[name].combine_chunks()
    values = column.flatten()
    if column.null_count or values.null_count or not len(column) or len(values) % len(column):
        raise ValueError(f"its column {name} is no matrix: it has missing values, or lists of several lengths")
    rows: Rows = values.to_numpy().reshape(len(column), -1)
    if any(len(item) != rows.shape[1] for item in column):
        raise ValueError(f"its column {name} has lists of several lengths")
    return rows


def _only(names: Sequence[str], key: str) -> str:
    if not key and len(names) == 1:
        return names[0]
    if key not in names:
        raise ValueError(f"there is no {key!r} in it; it has {', '.join(names)}")
    return key


def _system(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, inside = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as e:
        raise InputError(f"{path}: {e}") from None
    return system, inside


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what a library says of a file into an error of the input that names it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Exception as e:  # of many kinds: np.load alone has five
        text = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise InputError(f"{name}: {text or type(e).__name__}") from e
