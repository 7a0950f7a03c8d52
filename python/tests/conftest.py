"""The real sidecar under every test: bin/specalign, or what SPECALIGN_BINARY names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import specalign

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("SPECALIGN_BINARY", str(ROOT / "bin/specalign"))


def pytest_configure(config):
    binary = os.environ["SPECALIGN_BINARY"]
    if not os.access(binary, os.X_OK):
        raise pytest.UsageError(f"{binary} is not there; run `make build` first")


@pytest.fixture(scope="session")
def sidecar():
    with specalign.Sidecar(device="cpu", threads=1) as sidecar:
        yield sidecar


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def clustered(rng, n, d1, d2, dtype=np.float32):
    """Rows with groups that the reference sees and the student partly does not: a spectrum with gaps."""
    group = rng.integers(0, 6, n)
    student = rng.standard_normal((6, d1))[group // 2] + 0.7 * rng.standard_normal((n, d1))
    reference = rng.standard_normal((6, d2))[group] + 0.5 * rng.standard_normal((n, d2))
    return student.astype(dtype), reference.astype(dtype)


@pytest.fixture
def batch(rng):
    return clustered(rng, 96, 40, 56)
