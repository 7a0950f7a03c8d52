"""The identity of a sample: a 64-bit hash of what names it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def sample_id(path: str) -> int:
    """Return the id of an image: the BLAKE2b hash of its path, exactly as the CSV has it, as a signed 64-bit number.

    Among ten million paths two share an id with a chance of 3 in a million.
    """
    return int.from_bytes(
        hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little", signed=True
    )


def sample_ids(paths: Iterable[str]) -> np.ndarray:
    """Return the ids of `paths`, (n,) int64."""
    return np.fromiter((sample_id(p) for p in paths), dtype=np.int64)
