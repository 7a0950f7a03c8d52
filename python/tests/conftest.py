"""The real sidecar under every test: bin/specalign, or what SPECALIGN_BINARY names."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from batches import clustered
from hypothesis import settings

import specalign

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("SPECALIGN_BINARY", str(ROOT / "bin/specalign"))
# A sidecar takes AMX by itself, the engine in this process does not: tests that compare their bits need one level.
if "amx_tile" in Path("/proc/cpuinfo").read_text():
    os.environ.setdefault("SPECALIGN_ISA", "avx512")


# The same examples each time, so that a change is judged by what it does. HYPOTHESIS_PROFILE=random looks for new ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("random", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_configure(config):
    # A shell starts what it runs in the background with SIGINT ignored, which children inherit.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    binary = os.environ["SPECALIGN_BINARY"]
    if not os.access(binary, os.X_OK):
        raise pytest.UsageError(f"{binary} is not there; run `make build` first")


def pytest_generate_tests(metafunc):
    """What a session does, it does on both routes."""
    if "sidecar" in metafunc.fixturenames and metafunc.module.__name__ in ("test_session", "test_torch"):
        metafunc.parametrize("sidecar", ["process", "none"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def sidecar(request):
    with specalign.Sidecar(device="cpu", threads=1, isolation=getattr(request, "param", "process")) as sidecar:
        yield sidecar


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def batch(rng):
    return clustered(rng, 96, 40, 56)


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    """A short temporary directory for sockets that must be empty in the end."""
    tmp_path_factory.getbasetemp()  # elsewhere
    with tempfile.TemporaryDirectory(prefix="sa") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(name)
        # The folder of a sidecar that was dropped goes just behind it.
        deadline = time.monotonic() + 10
        while list(Path(name).iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not list(Path(name).iterdir())
        monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def want(batch):
    """The results of three steps that nothing disturbs."""
    with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(k=3) as session:
        return [session.step(*batch) for _ in range(3)]
