"""Rows to compare."""

from __future__ import annotations

import numpy as np

# Settings of a step that takes a while on every machine: all eigenpairs of a matrix as large as the batch.
SLOW = {"objective": "schatten", "kernel": "gaussian", "sigma": 5.0}


def clustered(rng, n, d1, d2, dtype=np.float32):
    """Rows with groups that the reference sees and the student partly does not: a spectrum with gaps."""
    group = rng.integers(0, 6, n)
    student = rng.standard_normal((6, d1))[group // 2] + 0.7 * rng.standard_normal((n, d1))
    reference = rng.standard_normal((6, d2))[group] + 0.5 * rng.standard_normal((n, d2))
    return student.astype(dtype), reference.astype(dtype)
